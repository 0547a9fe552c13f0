import type { SeedJobReport, Status } from '../../../node/control/api.ts'
import type { ByteRates } from '../../../node/metrics/byte-history.ts'
import { PageView } from '../../../node/metrics/page-view.ts'
import { digestOf, type Digest } from '../../../protocol/digest.ts'
import { createRandom } from '../../support/random.ts'

const mebibyte = 2 ** 20
const amount = (mebibytes: number): { bytes: number; chunks: number } => ({ bytes: mebibytes * mebibyte, chunks: 1 })
const digest = (text: string): Digest => digestOf(Buffer.from(text))

export interface RegionOptions {
  /** Changes every text that others choose. */
  text?: (text: string) => string
  isQuiet?: boolean
  hosts?: number
}

/** The status of a host of a busy region. */
export function regionStatus({ text = (same) => same, isQuiet = false, hosts = 6 }: RegionOptions = {}): Status {
  const images = [
    ['docker.io/library/python:3.12-slim', 131, 1],
    ['ghcr.io/acme/billing-api:2026-11-26', 418, 0.62],
    ['registry.acme.example/ml/llama-server:v14', 8_412, 0.18],
    ['docker.io/library/postgres:17', 436, 1],
    ['local:golden:debian-12', 982, 1],
  ] as const
  const mount = (place: number, directory: string, more: object = {}): object => {
    const [reference, sizeMebibytes, share] = images[place]!
    return {
      directory: text(directory),
      reference: text(reference),
      format: 'ext4',
      digest: digest(reference),
      as: 'drive',
      writable: false,
      reads: 'fuse',
      mountedAt: '2026-11-27T17:21:04.000Z',
      sizeBytes: sizeMebibytes * mebibyte,
      localBytes: Math.floor(sizeMebibytes * share * mebibyte),
      fetched: {
        peer: amount(sizeMebibytes * share * 0.9),
        neighbour: amount(0),
        registry: amount(sizeMebibytes * share * 0.1),
      },
      warnings: [],
      wholeReads: [],
      ...more,
    }
  }
  return {
    version: '0.2.0',
    name: text('eu-west-1a-host-17'),
    region: text('eu-west'),
    peerId: '12D3KooWMTu8xfXZHvW7rbQKCDMU6vhKMUpvK8FFzEHSvMbq5dE3',
    uptimeSeconds: 273_940,
    members: isQuiet ? 0 : 211,
    chunks: 48_212,
    served: { local: amount(10_240), peer: amount(3_911), neighbour: amount(0), registry: amount(212) },
    fetched: { peer: amount(9_420), neighbour: amount(120), registry: amount(611) },
    sent: amount(14_842),
    readErrors: 0,
    waitingReads: isQuiet
      ? { count: 0, slow: 0, longest: [] }
      : {
          count: 3,
          slow: 1,
          longest: [
            {
              images: [text(images[1][0])],
              rootfs: digest(images[1][0]),
              chunk: digest('chunk'),
              waitedSeconds: 12.4,
              failsInSeconds: 47.6,
              asked: [{ peer: 'id-4', name: text('eu-west-1b-host-04') }],
              refusals: [{ peer: 'id-5', name: text('eu-west-1b-host-05'), code: 'busy' }],
              registry: 'asked',
            },
            {
              images: [text(images[2][0])],
              rootfs: digest(images[2][0]),
              chunk: digest('chunk 2'),
              waitedSeconds: 0.3,
              failsInSeconds: 59.7,
              asked: [{ peer: 'id-2', name: text('eu-west-1a-host-02') }],
              refusals: [],
            },
          ],
        },
    peers: isQuiet
      ? []
      : Array.from({ length: hosts }, (_, i) => ({
          peer: `12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2X${i}`,
          name: text(`eu-west-1${'abc'[i % 3]}-host-0${i}`),
          connectedSeconds: 80_000 / (i + 1),
          received: amount(3_000 / (i + 1)),
          sent: amount(700 * (i + 1)),
          bulk: i === 4 ? 'unreachable' : 'open',
        })),
    images: isQuiet
      ? []
      : images.map(([reference, sizeMebibytes, share]) => ({
          reference: text(reference),
          platform: 'linux/amd64',
          format: 'ext4',
          digest: digest(reference),
          sizeBytes: sizeMebibytes * mebibyte,
          localBytes: Math.floor(sizeMebibytes * share * mebibyte),
        })),
    pins: isQuiet ? [] : [{ digest: digest(images[3][0]) }],
    imports: isQuiet
      ? []
      : [
          {
            reference: text('ghcr.io/acme/checkout:2026-11-27'),
            forPeers: 3,
            doneBytes: 210 * mebibyte,
            totalBytes: 512 * mebibyte,
          },
        ],
    mounts: isQuiet
      ? []
      : [
          mount(0, '/run/vms/7f3a/root', { reads: 'native' }),
          mount(1, '/run/vms/81c0/root'),
          mount(2, '/run/vms/81c1/root', { warnings: ['whole-layers'] }),
          mount(3, '/srv/containers/postgres-main', { as: 'tree', format: 'erofs', writable: true }),
        ],
  } as unknown as Status
}

function seeds(text: (text: string) => string): SeedJobReport[] {
  const host = (name: string, held: number, state = 'placing'): object => ({
    peer: name,
    name: text(name),
    extent: 'full',
    state,
    held,
    verified: held,
    total: 100,
    ...(state === 'failed' && { code: 'busy' }),
  })
  const seed = (reference: string, more: object): object => ({
    reference: text(reference),
    hot: false,
    endsAt: '2026-11-28T17:00:00.000Z',
    ...more,
  })
  return [
    seed('ghcr.io/acme/billing-api:2026-11-27', {
      state: 'placing',
      copies: 3,
      verifiedCopies: 1,
      hosts: [
        host('eu-west-1a-host-02', 100, 'held'),
        host('eu-west-1b-host-04', 64),
        host('eu-west-1c-host-05', 0, 'failed'),
      ],
    }),
    seed('docker.io/library/postgres:17', {
      state: 'placed',
      copies: 2,
      verifiedCopies: 2,
      demand: { mounts: 7, hosts: 3 },
      hosts: [host('eu-west-1a-host-17', 100, 'held'), host('eu-west-1c-host-08', 100, 'held')],
    }),
  ] as unknown as SeedJobReport[]
}

/** Rates of a busy quarter of an hour; always the same ones. */
function rates(isQuiet: boolean): ByteRates {
  const random = createRandom(7)
  const steps = 186
  const wave = (height: number, begin: number, end: number): number[] =>
    Array.from({ length: steps }, (_, i) =>
      isQuiet || i < begin || i > end
        ? 0
        : Math.round(
            height * mebibyte * (0.35 + 0.65 * random.next()) * Math.exp(-(((i - begin) / (end - begin)) ** 2)),
          ),
    )
  return {
    read: { local: wave(90, 20, 185), peer: wave(60, 30, 120), neighbour: wave(6, 60, 90), registry: wave(25, 28, 60) },
    fetched: { peer: wave(48, 30, 140), neighbour: wave(6, 60, 90), registry: wave(20, 28, 60) },
    sent: wave(36, 50, 180),
  }
}

/** The view of such a host, with what its members hold. */
export function regionView(options: RegionOptions = {}): PageView {
  const { text = (same) => same, isQuiet = false } = options
  const status = regionStatus(options)
  const [python, billing, llama, postgres] = status.images.map((image) => image.digest)
  const heldOf: Record<string, (held: number, host: number) => number> = isQuiet
    ? {}
    : {
        [python!]: (held) => held,
        [billing!]: (held, host) => (host < 5 ? Math.floor(held * 0.7) : 0),
        [llama!]: (_held, host) => (host === 2 ? 21 : 0),
        [postgres!]: (_held, host) => (host === 8 ? 100 : 0),
      }
  const table = (id: Digest): object => ({ id, count: 100 })
  const shares = [100, 100, 64, 12, 100, 3, 55, 40, 100, 9]
  const members = isQuiet
    ? []
    : shares.map((held, i) => ({
        id: `id-${i}`,
        hello: { name: text(`eu-west-1${'abc'[i % 3]}-host-0${i}`) },
        holdings: { countOf: (of: Digest) => heldOf[of]?.(held, i) ?? 0 },
      }))
  return new PageView({
    status: { run: async () => await Promise.resolve(status) },
    seeds: { run: async () => await Promise.resolve({ seeds: isQuiet ? [] : seeds(text) }) },
    network: { membership: { members: () => members } },
    catalog: {
      rootfs: async (of: Digest) => await Promise.resolve({ metadata: table(of), layers: [{ chunks: table(of) }] }),
    },
    history: { rates: () => rates(isQuiet) },
    readiness: { reason: undefined },
    room: async () => await Promise.resolve({ freeBytes: 812 * 1024 * mebibyte, sizeBytes: 1_787 * 1024 * mebibyte }),
  } as unknown as ConstructorParameters<typeof PageView>[0])
}
