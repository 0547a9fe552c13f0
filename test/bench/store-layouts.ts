// Compares ways to keep chunks on a disk: a file each, synced each or not, and 64 MiB segments. One thread that may block.
// argv: a directory of the disk to be measured, and the number of chunks. It drops the page cache of the machine.
import { execFileSync } from 'node:child_process'
import { hash } from 'node:crypto'
import {
  closeSync,
  fdatasyncSync,
  fstatSync,
  futimesSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  statfsSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { createRandom } from '../support/random.ts'

const [, , parent = '/var/tmp', count = '2048'] = process.argv
const chunkBytes = 256 * 1024
const segmentBytes = 64 * 1024 * 1024
const maxOpen = 512
const pages = 8192

interface Layout {
  write: (name: string, bytes: Uint8Array) => void
  /** Makes everything durable. */
  sync: () => void
  read: (name: string, target: Buffer, offset: number, lengthBytes: number) => void
  /** Lists what is there, as after a start. */
  list: () => number
  /** Gives back the room of these chunks. @returns how */
  evict: (names: readonly string[]) => string
  close: () => void
}

function filesIn(directory: string, options: { syncEach: boolean }): Layout {
  mkdirSync(join(directory, 'incoming'), { recursive: true })
  for (let i = 0; i < 256; i++) mkdirSync(join(directory, i.toString(16).padStart(2, '0')))
  const path = (name: string): string => join(directory, name.slice(0, 2), name)
  const open = new Map<string, number>()
  return {
    write: (name, bytes) => {
      const temporary = join(directory, 'incoming', name)
      const file = openSync(temporary, 'wx', 0o600)
      writeSync(file, bytes)
      if (options.syncEach) fdatasyncSync(file)
      else futimesSync(file, 1, 1)
      closeSync(file)
      renameSync(temporary, path(name))
    },
    sync: () => void (options.syncEach || execFileSync('sync', ['-f', directory])),
    read: (name, target, offset, lengthBytes) => {
      let file = open.get(name)
      if (file === undefined) {
        if (open.size >= maxOpen) {
          const [oldest] = open
          open.delete(oldest![0])
          closeSync(oldest![1])
        }
        open.set(name, (file = openSync(path(name), 'r')))
      }
      fstatSync(file)
      readSync(file, target, 0, lengthBytes, offset)
    },
    list: () =>
      readdirSync(directory)
        .filter((name) => name.length === 2)
        .reduce((sum, name) => sum + readdirSync(join(directory, name)).length, 0),
    evict: (names) => {
      for (const name of names) unlinkSync(path(name))
      return 'unlink'
    },
    close: () => {
      for (const file of open.values()) closeSync(file)
      open.clear()
    },
  }
}

function segmentsIn(directory: string): Layout {
  mkdirSync(directory, { recursive: true })
  const places = new Map<string, { segment: number; offset: number; lengthBytes: number }>()
  const segments: number[] = []
  const index = openSync(join(directory, 'index'), 'a+')
  let end = segmentBytes
  const write: Layout['write'] = (name, bytes) => {
    if (end + bytes.length > segmentBytes) {
      segments.push(openSync(join(directory, `segment-${segments.length}`), 'w+'))
      end = 0
    }
    writeSync(segments.at(-1)!, bytes, 0, bytes.length, end)
    places.set(name, { segment: segments.length - 1, offset: end, lengthBytes: bytes.length })
    writeSync(index, `${name} ${segments.length - 1} ${end} ${bytes.length}\n`)
    end += bytes.length
  }
  return {
    write,
    sync: () => {
      for (const file of [...segments, index]) fdatasyncSync(file)
    },
    read: (name, target, offset, lengthBytes) => {
      const place = places.get(name)!
      readSync(segments[place.segment]!, target, 0, lengthBytes, place.offset + offset)
    },
    list: () => {
      const { size } = fstatSync(index)
      const bytes = Buffer.alloc(size)
      readSync(index, bytes, 0, size, 0)
      return bytes.toString('latin1').trimEnd().split('\n').length
    },
    // Node has no call that punches holes: what stays is copied, and the segment is removed.
    evict: (names) => {
      const gone = new Set(names)
      const bytes = Buffer.alloc(chunkBytes)
      const before = segments.length
      // A chunk that is copied comes again at the end of the map.
      for (const [name, { segment, offset, lengthBytes }] of places) {
        if (segment >= before || gone.has(name)) continue
        readSync(segments[segment]!, bytes, 0, lengthBytes, offset)
        write(name, bytes.subarray(0, lengthBytes))
      }
      for (let i = 0; i < before; i++) unlinkSync(join(directory, `segment-${i}`))
      for (const name of gone) places.delete(name)
      return 'copy'
    },
    close: () => undefined,
  }
}

function dropPageCache(): void {
  execFileSync('sync', ['-f', parent])
  writeFileSync('/proc/sys/vm/drop_caches', '1')
}

/** @returns seconds, and seconds of CPU */
function timed(work: () => void): { s: number; cpu: number } {
  const [start, before] = [performance.now(), process.cpuUsage()]
  work()
  const { user, system } = process.cpuUsage(before)
  return { s: (performance.now() - start) / 1e3, cpu: (user + system) / 1e6 }
}

const layouts: Record<string, (directory: string) => Layout> = {
  'file, synced each': (directory) => filesIn(directory, { syncEach: true }),
  'file, group sync': (directory) => filesIn(directory, { syncEach: false }),
  'segments of 64 MiB': segmentsIn,
}
const random = createRandom(1)
const bytes = random.bytes(chunkBytes)
const names = Array.from({ length: Number(count) }, (_, i) => hash('sha256', `${i}`))
const megabytes = (names.length * chunkBytes) / 1e6
const target = Buffer.alloc(chunkBytes)
for (const [kind, make] of Object.entries(layouts)) {
  const directory = join(parent, 'store-layouts')
  rmSync(directory, { recursive: true, force: true })
  const layout = make(directory)
  const figures: Record<string, string> = {}
  const written = timed(() => {
    for (const [i, name] of names.entries()) {
      bytes.writeUInt32LE(i, 0)
      layout.write(name, bytes)
    }
  })
  const durable = timed(() => layout.sync())
  figures['write MB/s'] = (megabytes / written.s).toFixed(0)
  figures['durable MB/s'] = (megabytes / (written.s + durable.s)).toFixed(0)
  figures['CPU s/GB'] = ((written.cpu / megabytes) * 1e3).toFixed(2)
  const order = Array.from(
    { length: pages },
    () => [names[random.below(names.length)]!, random.below(64) * 4096] as const,
  )
  for (const heat of ['cold', 'warm']) {
    if (heat === 'cold') {
      layout.close()
      dropPageCache()
    }
    const inOrder = timed(() => {
      for (const name of names)
        for (const half of [0, 1]) layout.read(name, target, half * (chunkBytes / 2), chunkBytes / 2)
    })
    figures[`${heat} sequential MB/s`] = (megabytes / inOrder.s).toFixed(0)
    if (heat === 'cold') {
      layout.close()
      dropPageCache()
    }
    const atRandom = timed(() => {
      for (const [name, offset] of order) layout.read(name, target, offset, 4096)
    })
    figures[`${heat} 4 KiB reads/s`] = (pages / atRandom.s).toFixed(0)
  }
  figures['list ms'] = (timed(() => layout.list()).s * 1e3).toFixed(0)
  figures['RSS MB'] = (process.memoryUsage().rss / 1e6).toFixed(0)
  const { bfree, bsize } = statfsSync(directory)
  const half = names.filter((_, i) => i % 2 === 0)
  let how = ''
  const evicted = timed(() => (how = layout.evict(half)))
  figures['evict half ms'] = `${(evicted.s * 1e3).toFixed(0)} (${how})`
  figures['freed at once MB'] = (((statfsSync(directory).bfree - bfree) * bsize) / 1e6).toFixed(0)
  process.stdout.write(`${JSON.stringify({ kind, ...figures })}\n`)
  rmSync(directory, { recursive: true, force: true })
}
