import type { SimulatedRegion } from './simulated-region.ts'

/** Events besides that all hosts start at once. */
export const scenarios = {
  burst: 'nothing fails',
  churn: '30 % of the hosts lose power in each minute, and come back empty with another identity',
  partition: 'half of the region is cut off from the other half for 20 s',
  liars: 'a tenth of the hosts answer with wrong bytes',
  slow: 'a tenth of the hosts have links of 1 KB/s',
  stopped: 'a tenth of the hosts are stopped (SIGSTOP) for 20 s',
} as const
export type Scenario = keyof typeof scenarios

const share = 0.1
const outageMs = 20_000
/** The time after the start at which the network is divided, or hosts are stopped (ms): in the middle of a boot. */
const faultAtMs = 300
const churnShareOfMinute = 0.3

/** Does what the scenario says, from the start of the burst on. */
export function play(scenario: Scenario, region: SimulatedRegion): void {
  const { clock, random, nodes } = region
  const some = nodes.filter((_, i) => i > 0 && i % Math.round(1 / share) === 0)
  switch (scenario) {
    case 'burst':
      return
    case 'churn': {
      const everyMs = 60_000 / (churnShareOfMinute * nodes.length)
      const next = (): void => {
        if (region.isOver) return
        region.replace(random.below(nodes.length))
        clock.after(-Math.log(1 - random.next()) * everyMs, next)
      }
      clock.after(-Math.log(1 - random.next()) * everyMs, next)
      return
    }
    case 'partition':
      clock.after(faultAtMs, () => region.network.divide(({ index }) => index % 2))
      clock.after(faultAtMs + outageMs, () => region.network.divide(() => 0))
      return
    case 'liars':
      for (const node of some) node.isLiar = true
      return
    case 'slow':
      for (const { host } of some) {
        region.exclude(host.index)
        host.setRate(8_000)
      }
      return
    case 'stopped':
      for (const { host } of some) region.exclude(host.index)
      clock.after(faultAtMs, () => {
        for (const { host } of some) host.suspend()
      })
      clock.after(faultAtMs + outageMs, () => {
        for (const { host } of some) host.resume()
      })
  }
}
