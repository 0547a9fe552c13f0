import { guestImage } from '../images/guest-image.ts'
import { measurement, type Measurement } from './measurement.ts'
import { runBoot } from '../scenarios/boot.ts'

/** Each boot takes half a minute: two VMs without hardware virtualisation. */
const maxBoots = 3
const bytesPerMegabyte = 1e6

/** Measures a VM on a host that has nothing of the image, and a second VM on the same host. */
export async function measureBoots(runs: number): Promise<Measurement[]> {
  const guest = await guestImage()
  const values = { cold: [] as number[], warm: [] as number[], fetched: [] as number[], image: [] as number[] }
  for (let i = 0; i < Math.min(runs, maxBoots); i++) {
    const { readyMs, readyAgainMs, fetchedAtReadyBytes, rootfsBytes } = await runBoot(guest)
    values.cold.push(readyMs / 1000)
    values.warm.push(readyAgainMs / 1000)
    values.fetched.push(fetchedAtReadyBytes / bytesPerMegabyte)
    values.image.push(rootfsBytes / bytesPerMegabyte)
  }
  return [
    measurement('VM ready, image on another host only', 's', values.cold, {
      name: 'again, image local and warm',
      values: values.warm,
    }),
    measurement('fetched until the VM was ready', 'MB', values.fetched, { name: 'whole image', values: values.image }),
  ]
}
