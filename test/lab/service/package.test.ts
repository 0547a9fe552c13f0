import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { MountResult, Status } from '../../../node/control/api.ts'
import { oddImage } from '../../../netlab/images/images.ts'
import { DebianHost } from './debian-host.ts'
import { Readers } from './readers.ts'

const build = fileURLToPath(new URL('../../../contrib/debian/build.sh', import.meta.url))
const waitMs = 90_000
const missing = ['mmdebstrap', 'dpkg-shlibdeps', 'strip'].filter((tool) => spawnSync('which', [tool]).status !== 0)

/** @returns the file's name */
function buildPackage(directory: string, version: string): string {
  const env = { ...process.env, P2PFS_DEB_VERSION: version, P2PFS_DEB_LEVEL: '0' }
  execFileSync(build, [directory], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  return `p2pfs_${version}_${execFileSync('dpkg', ['--print-architecture'], { encoding: 'utf8' }).trim()}.deb`
}

test(
  'a Debian host: installed, mounted, restarted, killed, upgraded, rebooted, removed; twenty readers see no error',
  { skip: missing.length > 0 ? `missing: ${missing.join(', ')}` : false },
  async (t) => {
    const host = await DebianHost.start(t)
    const root = join(host.root, 'root')
    const [first = '', next = ''] = ['1.0.0', '1.0.1'].map((version) => buildPackage(root, version))
    const image = await oddImage()
    cpSync(image.layoutDirectory, join(root, 'image'), { recursive: true })
    const reference = `oci:/root/image:${image.tag}`

    // As a new user would.
    host.run(`cd /root && apt-get install -y ./${first}`)
    host.run('mkdir /run/vm1')
    host.run(`p2pfs mount ${reference} /run/vm1`)
    assert.equal(host.run('head -c 4096 /run/vm1/rootfs.img | wc -c').trim(), '4096')

    const status = (): Status => JSON.parse(host.run('p2pfs status --json')) as Status
    const supervisor = (): string => host.run('systemctl show p2pfs --property MainPID --value').trim()
    host.run(`mkdir /etc/p2pfs && echo '{"nativeReads":"off"}' >/etc/p2pfs/config.json && systemctl restart p2pfs`)
    const paths = Array.from({ length: 20 }, (_, i) => {
      const as = i % 2 === 0 ? 'drive' : 'tree'
      const said = host.run(`mkdir /run/m${i} && p2pfs mount ${reference} /run/m${i} --as ${as} --json`)
      return (JSON.parse(said) as MountResult).rootfs
    })
    const readers = new Readers(t, '/root', paths, host)
    await readers.readAll()
    /** Waits until another daemon serves, if one is to come, and reads all. */
    const goesOn = async (daemonPid: number | undefined): Promise<void> => {
      for (const deadline = performance.now() + waitMs; daemonPid !== undefined;) {
        const answer = host.try('p2pfs status --json')
        if (answer.startsWith('{') && (JSON.parse(answer) as Status).daemonPid !== daemonPid) break
        assert.ok(performance.now() < deadline, host.try('journalctl -u p2pfs --no-pager | tail -50'))
        await new Promise((over) => setTimeout(over, 100))
      }
      await readers.readAll()
      assert.equal(status().mounts.length, 21)
    }
    const events: [string, () => void, 'another daemon' | 'the same daemon'][] = [
      ['restart', () => host.run('systemctl restart p2pfs'), 'another daemon'],
      ['kill -9 of the supervisor', () => host.run(`kill -9 ${supervisor()}`), 'another daemon'],
      ['reload', () => host.run('systemctl reload p2pfs'), 'another daemon'],
      ['kill -9 of all', () => host.run('systemctl kill --signal KILL p2pfs'), 'another daemon'],
      ['stop', () => host.run('systemctl stop p2pfs'), 'the same daemon'],
      ['start', () => host.run('systemctl start p2pfs'), 'another daemon'],
      ['upgrade', () => host.run(`dpkg -i /root/${next}`), 'another daemon'],
    ]
    for (const [name, act, who] of events) {
      const { daemonPid } = status()
      act()
      await goesOn(who === 'another daemon' ? daemonPid : undefined)
      t.diagnostic(`${name}: read ${readers.rounds} times`)
    }
    assert.deepEqual(await readers.stop(), [])
    assert.equal(host.run('systemctl is-active p2pfs').trim(), 'active')

    await host.powerOff()
    await host.boot()
    assert.deepEqual(status().mounts, [], 'a reboot leaves nothing stale')
    host.run(`mkdir /run/vm1 && p2pfs mount ${reference} /run/vm1 --as tree`)

    host.run('apt-get remove -y p2pfs')
    assert.doesNotMatch(host.run('cat /proc/mounts'), /p2pfs/)
    assert.equal(host.try('pgrep -f "[/]usr/lib/p2pfs"'), '')
    host.run('apt-get purge -y p2pfs')
    const directories = '/var/lib/p2pfs /var/cache/p2pfs /run/p2pfs /usr/lib/p2pfs'
    assert.equal(host.run(`for each in ${directories}; do [ ! -e $each ] || echo $each; done`), '')
  },
)
