import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { test } from 'node:test'
import { DaemonProcess } from './daemon-process.ts'

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

test('daemons that were replaced are counted by the cause, and the next one serves probes, metrics and the page', async (t) => {
  const port = await freePort()
  const daemon = await DaemonProcess.start(t, ['--metrics-listen', `127.0.0.1:${port}`])
  const replaced = async (cause: string): Promise<number> =>
    await daemon.metric(`p2pfs_daemon_replacements_total{cause="${cause}"}`)
  let { daemonPid } = await daemon.status()
  assert.deepEqual([await replaced('ordered'), await replaced('unexpected')], [0, 0])
  process.kill(daemonPid, 'SIGKILL')
  ;({ daemonPid } = await daemon.replaced(daemonPid))
  assert.deepEqual([await replaced('ordered'), await replaced('unexpected')], [0, 1])
  daemon.signal('SIGHUP')
  await daemon.replaced(daemonPid)
  assert.deepEqual([await replaced('ordered'), await replaced('unexpected')], [1, 1])
  for (const [path, type] of [
    ['/readyz', 'text/plain'],
    ['/metrics', 'text/plain'],
    ['/', 'text/html'],
    ['/page.js', 'text/javascript'],
    ['/page.css', 'text/css'],
    ['/status.json', 'application/json'],
  ] as const) {
    const response = await fetch(`http://127.0.0.1:${port}${path}`)
    assert.equal(response.status, 200, path)
    assert.ok(response.headers.get('content-type')?.startsWith(type), path)
    assert.ok((await response.text()).length > 2, path)
  }
})

test('nothing listens for metrics unless it is asked for, and the control socket has them all the same', async (t) => {
  const daemon = await DaemonProcess.start(t)
  assert.equal(await daemon.metric('p2pfs_reads_waiting'), 0)
  assert.doesNotMatch(daemon.log, /metrics and status page/)
})
