import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { describeOptions } from '../../node/config/described-options.ts'
import { loadConfig } from '../../node/config/load-config.ts'
import { flagOf, options, variableOf } from '../../node/config/options.ts'
import { isP2pfsError } from '../../protocol/errors.ts'
import { temporaryDirectory } from '../support/temporary.ts'

const none = '/nonexistent/config.json'

/** A value for each option that differs from its fallback. */
const samples: Record<keyof typeof options, { given: string; read: unknown }> = {
  stateDir: { given: '/srv/p2pfs', read: '/srv/p2pfs' },
  control: { given: '/srv/p2pfs.sock', read: '/srv/p2pfs.sock' },
  controlGroup: { given: 'p2pfs', read: 'p2pfs' },
  region: { given: 'eu', read: 'eu' },
  regionKeyFile: { given: '/srv/region.key', read: '/srv/region.key' },
  regionMembers: { given: '/srv/members', read: '/srv/members' },
  openRegion: { given: 'true', read: true },
  name: { given: 'host-9', read: 'host-9' },
  listen: { given: '/ip4/127.0.0.1/tcp/1,/ip6/::1/tcp/1', read: ['/ip4/127.0.0.1/tcp/1', '/ip6/::1/tcp/1'] },
  bulk: { given: 'plain', read: 'plain' },
  bulkListen: { given: '/ip4/127.0.0.1/tcp/4102', read: '/ip4/127.0.0.1/tcp/4102' },
  bootstrap: { given: '/ip4/127.0.0.2/tcp/4100', read: ['/ip4/127.0.0.2/tcp/4100'] },
  neighbourRegion: { given: 'b=/ip4/127.0.0.1/tcp/4200', read: ['b=/ip4/127.0.0.1/tcp/4200'] },
  neighbourKeyFile: { given: 'b=/srv/guest.key', read: ['b=/srv/guest.key'] },
  neighbourBandwidth: { given: '200Mbit', read: '200Mbit' },
  guestKeyFile: { given: '/srv/guests.key', read: '/srv/guests.key' },
  uploadLimit: { given: '1Gbit', read: '1Gbit' },
  downloadLimit: { given: '25MB', read: '25MB' },
  registryLimit: { given: '100Mbit', read: '100Mbit' },
  seedLimit: { given: '500 kbit', read: '500 kbit' },
  insecureRegistry: { given: 'localhost:5000', read: ['localhost:5000'] },
  registryMirror: {
    given: 'docker.io=https://a.example,ghcr.io=http://b.example/x',
    read: ['docker.io=https://a.example', 'ghcr.io=http://b.example/x'],
  },
  registryHostsDir: { given: '/etc/containerd/certs.d', read: ['/etc/containerd/certs.d'] },
  importForPeers: { given: 'none', read: 'none' },
  peerRegistry: { given: 'docker.io,localhost:5000', read: ['docker.io', 'localhost:5000'] },
  seedForPeers: { given: 'off', read: 'off' },
  hotImages: { given: 'off', read: 'off' },
  fullMesh: { given: '4', read: 4 },
  hotDisk: { given: '4GiB', read: 4_294_967_296 },
  hotBandwidth: { given: '1MiB', read: '1MiB' },
  hotDelay: { given: '2s', read: 2 },
  hotTagInterval: { given: '1m', read: 60 },
  registryCa: { given: '/srv/ca.pem', read: ['/srv/ca.pem'] },
  registryConnections: { given: '4', read: 4 },
  registryRequestsPerSecond: { given: '30', read: 30 },
  metricsListen: { given: '127.0.0.1:9464', read: '127.0.0.1:9464' },
  pull: { given: 'missing', read: 'missing' },
  resolveBudget: { given: '500ms', read: 0.5 },
  tagMaxAge: { given: '0s', read: 0 },
  readDeadline: { given: '1.5m', read: 90 },
  platform: { given: 'linux/riscv64', read: 'linux/riscv64' },
  trustIndexKey: {
    given: '12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo',
    read: ['12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo'],
  },
  fuseDriver: { given: 'native', read: 'native' },
  fuseWorkers: { given: '7', read: 7 },
  storeLimit: { given: '2GiB', read: 2_147_483_648 },
  storeKeepFree: { given: '15%', read: '15%' },
  bootProfiles: { given: 'off', read: 'off' },
  verifyBelieved: { given: 'off', read: 'off' },
  nativeReads: { given: 'all', read: 'all' },
  nativeLimit: { given: '4GiB', read: 4_294_967_296 },
  maxLayerSize: { given: '1.5GiB', read: 1_610_612_736 },
  maxLayerMetadata: { given: '100MiB', read: 104_857_600 },
  logLevel: { given: 'debug', read: 'debug' },
}

/** Options for tests, which the help does not name. */
const hidden = new Set(['fullMesh'])

for (const [name, { given, read }] of Object.entries(samples)) {
  const flag = `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
  const variable = `P2PFS_${flag.slice(2).replaceAll('-', '_').toUpperCase()}`
  test(`${name} is read from its flag, its variable and the file`, (t) => {
    const key = name as keyof typeof options
    const file = join(temporaryDirectory(t), 'config.json')
    writeFileSync(file, JSON.stringify({ [name]: read }))
    assert.deepEqual(loadConfig(read === true ? [flag] : [flag, given], {}, none)[key], read)
    assert.deepEqual(loadConfig([], { [variable]: given }, none)[key], read)
    assert.deepEqual(loadConfig(['--config', file], {}, none)[key], read)
    assert.deepEqual(loadConfig([], { P2PFS_CONFIG: file }, none)[key], read)
    assert.notDeepEqual(loadConfig([], {}, none)[key], read)
    assert.equal(flag.slice(2) in describeOptions(), !hidden.has(name))
  })
}

test('a flag wins over the environment, which wins over the file', (t) => {
  const file = join(temporaryDirectory(t), 'config.json')
  writeFileSync(file, JSON.stringify({ region: 'file' }))
  assert.equal(loadConfig(['--region', 'flag'], { P2PFS_REGION: 'env' }, file).region, 'flag')
  assert.equal(loadConfig([], { P2PFS_REGION: 'env' }, file).region, 'env')
  assert.equal(loadConfig([], {}, file).region, 'file')
})

/** Values beyond what each kind of option takes, and what the message says of the range. */
const beyond: Record<string, { values: string[]; range: RegExp }> = {
  SIZE: { values: ['0', '-1', '5GB', '9999999TiB', 'much'], range: /1B or more/ },
  TIME: { values: ['-1s', '25h', '2d', 'soon'], range: /0s and at most one day/ },
  N: { values: ['0', '-1', '1.5', '1000000', 'many'], range: /from 1 to \d+/ },
  RATE: { values: ['0', '0Mbit', '-1Mbit', '5', 'fast'], range: /no rate such as 200Mbit or 25MB a second/ },
  'SIZE|PERCENT': { values: ['120%', '-1', 'much'], range: /size such as 20GiB nor a share of the disk such as 15%/ },
}

test('a value out of range is refused with the range, and the error says whether it stands on the command line', (t) => {
  const directory = temporaryDirectory(t)
  for (const [name, { value: kind }] of Object.entries(options)) {
    if (beyond[kind] === undefined) continue
    const { values, range } = beyond[kind]
    const flag = flagOf(name)
    const given = ['uploadLimit', 'neighbourBandwidth'].includes(name) ? [...values, '1kbit', '1.9Mbit'] : values
    for (const text of given) {
      const expected = text.endsWith('bit') && /^1\.?9?[kM]/.test(text) ? /2Mbit or more, or none/ : range
      const file = join(directory, 'config.json')
      writeFileSync(file, JSON.stringify({ [name]: text }))
      const places: [string[], NodeJS.ProcessEnv, string, true | undefined][] = [
        [[`--${flag}=${text}`], {}, `--${flag}`, undefined],
        [[], { [variableOf(name)]: text }, variableOf(name), true],
        [['--config', file], {}, `${name} in ${file}`, true],
      ]
      for (const [argv, environment, where, isStored] of places)
        assert.throws(
          () => loadConfig(argv, environment, none),
          (error) =>
            isP2pfsError(error, 'invalid') &&
            error.message.startsWith(where) &&
            expected.test(error.message) &&
            error.details['isStored'] === isStored,
          `${name} ${text}`,
        )
    }
  }
})

test('a platform is taken by any of its names', () => {
  assert.equal(loadConfig(['--platform', 'Linux/x86_64'], {}, none).platform, 'linux/amd64')
})

test('a wrong option is named, with the place where it was given', (t) => {
  const file = join(temporaryDirectory(t), 'config.json')
  const rejects = (pattern: RegExp, argv: string[], environment: NodeJS.ProcessEnv = {}): void =>
    assert.throws(
      () => loadConfig(argv, environment, none),
      (error) => isP2pfsError(error, 'invalid') && pattern.test(error.message),
    )
  rejects(/--regoin/, ['--regoin', 'x'])
  rejects(/P2PFS_FUSE_WORKERS is many/, [], { P2PFS_FUSE_WORKERS: 'many' })
  rejects(/P2PFS_MAX_LAYER_SIZE is 5GB; it takes a size/, [], { P2PFS_MAX_LAYER_SIZE: '5GB' })
  rejects(/--read-deadline is soon; it takes a time such as 60s/, ['--read-deadline', 'soon'])
  rejects(/--read-deadline is 0s/, ['--read-deadline', '0s'])
  rejects(/--max-layer-metadata is 0/, ['--max-layer-metadata', '0'])
  rejects(/not a mirror: "docker\.io".*docker\.io=https:/, ['--registry-mirror', 'docker.io=mirror'])
  rejects(/its credentials go into docker login/, ['--registry-mirror', 'docker.io=https://u:p@mirror.example'])
  rejects(/not a registry: "http:\/\/host:5000"; it is given as HOST or HOST:PORT: host:5000/, [
    '--insecure-registry',
    'http://host:5000',
  ])
  rejects(/not a registry: "host\/"; it is given as HOST or HOST:PORT: host/, ['--insecure-registry', 'host/'])
  rejects(/not a registry: "10\.0\.0\.0\/8"/, ['--insecure-registry', '10.0.0.0/8'])
  rejects(/not a mirror: "https:\/\/docker\.io"/, ['--registry-mirror', 'https://docker.io=https://mirror.example'])
  rejects(/not a platform: "amd64"/, ['--platform', 'amd64'])
  rejects(/not a key: "QmPeer"; it is a peer id/, ['--trust-index-key', 'QmPeer'])
  rejects(/not a platform: "amd64"/, ['--platform', 'amd64'])
  for (const option of ['--name', '--region'])
    rejects(/has 257 characters; a name or region has at most 256/, [option, 'n'.repeat(257)])
  rejects(/--fuse-driver is loop.*dev, native/, ['--fuse-driver', 'loop'])
  rejects(/cannot read .*nowhere/, ['--config', '/nowhere.json'])
  writeFileSync(file, '{"regoin": "x"}')
  rejects(/unknown option: regoin/, ['--config', file])
  writeFileSync(file, '{')
  rejects(/not JSON/, ['--config', file])
})

const loopback = ['/ip4/127.0.0.1/tcp/4100']

test('a daemon without a region key is reached on loopback only', () => {
  assert.deepEqual(loadConfig([], {}, none).listen, loopback)
  for (const listen of ['/ip4/127.0.0.1/tcp/1', '/ip4/127.9.9.9/tcp/1/p2p/x', '/ip6/::1/tcp/1'])
    assert.deepEqual(loadConfig(['--listen', listen], {}, none).listen, [listen])
  for (const exposed of [
    '/ip4/0.0.0.0/tcp/4100',
    '/ip4/10.0.0.1/tcp/1',
    '/ip6/::/tcp/1',
    '/ip4/1.127.0.0/tcp/1',
    '/dns4/localhost/tcp/1',
  ])
    for (const option of ['--listen', '--bootstrap'])
      assert.throws(
        () => loadConfig([option, `${loopback[0]},${exposed}`], {}, none),
        (error) =>
          isP2pfsError(error, 'invalid') && /p2pfs keygen.*--region-key-file.*--open-region/.test(error.message),
        `${option} ${exposed}`,
      )
})

test('a daemon with a region key, or in an open region, is reached from everywhere', () => {
  for (const option of [['--region-key-file', '/srv/key'], ['--open-region']]) {
    assert.deepEqual(loadConfig(option, {}, none).listen, ['/ip4/0.0.0.0/tcp/4100'])
    assert.deepEqual(loadConfig([...option, '--listen', '/ip4/10.0.0.1/tcp/1'], {}, none).listen, [
      '/ip4/10.0.0.1/tcp/1',
    ])
  }
  assert.throws(() => loadConfig(['--open-region', '--region-key-file', '/srv/key'], {}, none), /lets everybody in/)
  assert.throws(() => loadConfig([], { P2PFS_OPEN_REGION: 'maybe' }, none), /takes true or false/)
})

test('an address that is no multiaddr of TCP is refused where it is given', () => {
  for (const option of ['--listen', '--bulk-listen', '--bootstrap'])
    for (const address of ['here', '127.0.0.1:4100', '/ip4/127.0.0.1/udp/1', '/ip4/127.0.0.1/tcp/80000', '/memory/x'])
      assert.throws(
        () => loadConfig([option, address], {}, none),
        (error) => isP2pfsError(error, 'invalid') && /not an address of a peer: .*\/ip4\/10/.test(error.message),
        `${option} ${address}`,
      )
  assert.throws(() => loadConfig(['--neighbour-region', 'b=here'], {}, none), /not an address of a peer: "here"/)
  assert.deepEqual(loadConfig(['--bootstrap', '/ip4/127.0.0.1/tcp/1/p2p/x'], {}, none).bootstrap, [
    '/ip4/127.0.0.1/tcp/1/p2p/x',
  ])
})
