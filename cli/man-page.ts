import { isLiteral, wrap } from './help.ts'
import type { DescribedCommand } from './described-commands.ts'

/** The manual of p2pfs in mdoc(7). @param date of the page, in the form of `2026-01-31` */
export function manPage(commands: readonly DescribedCommand[], date: string): string {
  return [
    '.\\" Generated from the tables of the command line by npm run man',
    `.Dd ${formatDate(date)}`,
    '.Dt P2PFS 1',
    '.Os',
    '.Sh NAME',
    '.Nm p2pfs',
    '.Nd root filesystems of OCI images, from peers and registries',
    '.Sh SYNOPSIS',
    '.Nm',
    '.Ar COMMAND',
    '.Op Ar option ...',
    '.Sh DESCRIPTION',
    ...text(introduction),
    '.Sh COMMANDS',
    ...commands.flatMap(commandLines),
    '.Sh ENVIRONMENT',
    ...list([
      ['.It Ev P2PFS_CONTROL', 'the control socket, where no --control is given.'],
      ['.It Ev P2PFS_CONFIG', 'the configuration file of the daemon, where no --config is given.'],
      ['.It Ev P2PFS_* ', 'an option of the daemon: P2PFS_STATE_DIR for --state-dir.'],
      ['.It Ev P2PFS_COMPILE_CACHE', 'where the program keeps its compiled sources.'],
    ]),
    '.Sh FILES',
    ...list([
      ['.It Pa /etc/p2pfs/config.json', 'options of the daemon, in JSON.'],
      ['.It Pa /var/lib/p2pfs', "the daemon's state: chunks, catalog, identity, mounts."],
      ['.It Pa /run/p2pfs/p2pfs.sock', 'the control socket.'],
    ]),
    '.Sh EXIT STATUS',
    ...text('0: success. 1: failure. 2: wrong usage: a command line that can never be right, whoever finds that.'),
    '.Pp',
    ...text('p2pfs daemon ends with 0 when it is stopped by a signal, and otherwise with:'),
    ...list([
      ['.It 2', 'a wrong option.'],
      ['.It 70', 'it crashes whenever it starts.'],
      ['.It 75', 'it cannot start now, but another try may help: a port is in use, the disk is full.'],
      ['.It 78', 'it cannot start until something is changed.'],
    ]),
    '.Sh EXAMPLES',
    ...literal(examples),
    '',
  ].join('\n')
}

const introduction = `p2pfs makes the root filesystem of an OCI image mountable on any host of a region in milliseconds.
Images stay as they are in their registry. Their blocks are fetched when they are first read: from peers in the region, and only
then from the registry. A microVM gets a block image as its drive, a container gets the files.`

const examples = `p2pfs daemon --listen /ip4/127.0.0.1/tcp/4100 2>daemon.log &
p2pfs mount docker.io/library/debian:12 /run/vm1
p2pfs mount docker.io/library/debian:12 /run/app --as tree --writable --size 2GiB
p2pfs seed docker.io/library/debian:12 --copies 3
p2pfs umount /run/vm1`

/** Longer lines are bad style in mdoc (characters); a little is for what is escaped. */
const maxLineLength = 72

const months = 'January February March April May June July August September October November December'.split(' ')

function formatDate(date: string): string {
  const [year = '', month = '', day = ''] = date.split('-')
  return `${months[Number(month) - 1] ?? ''} ${Number(day)}, ${year}`
}

function commandLines({ name, usage, text: about, summary, positionals, options, notes }: DescribedCommand): string[] {
  const described = Object.entries(positionals).filter(([, { help }]) => help !== undefined)
  return [
    `.Ss p2pfs ${name}: ${escape(summary)}`,
    ...usage.flatMap((form) => ['.Nm', ...text(`${name} ${form}`.trim()), '.Op Ar option ...', '.br']).slice(0, -1),
    '.Pp',
    ...text(about),
    ...list([
      ...described.map(([label, { help = '' }]) => [`.It Ar ${escape(label)}`, help] as const),
      ...Object.entries(options).map(([option, { value, help, fallback }]) => {
        const flag = `.It Fl \\-${option.replaceAll('-', '\\-')}${value === undefined ? '' : ` Ar ${escape(value)}`}`
        return [flag, fallback === undefined ? help : `${help} [${fallback}]`] as const
      }),
    ]),
    ...(notes === undefined ? [] : ['.Pp', ...text(notes)]),
  ]
}

function list(items: readonly (readonly [string, string])[]): string[] {
  if (items.length === 0) return []
  return ['.Bl -tag -width Ds', ...items.flatMap(([item, help]) => [item.trimEnd(), ...text(help)]), '.El']
}

/** Paragraphs; a sentence begins a line. */
function text(paragraphs: string): string[] {
  return paragraphs
    .trim()
    .split('\n\n')
    .flatMap((paragraph, index) => {
      const begin = index === 0 ? [] : ['.Pp']
      if (!isLiteral(paragraph)) return [...begin, ...sentences(paragraph)]
      const lines = paragraph.split('\n')
      const head = lines.findIndex((line) => line.startsWith('  '))
      return [...begin, ...sentences(lines.slice(0, head).join(' ')), ...literal(lines.slice(head).join('\n'))]
    })
}

const sentences = (paragraph: string): string[] =>
  paragraph
    .replaceAll(/\s+/g, ' ')
    .replaceAll(/([.!?]['")\]]*) /g, '$1\n')
    .split('\n')
    .filter((line) => line !== '')
    .flatMap((sentence) => wrap(sentence, maxLineLength))
    .map(escape)

const literal = (lines: string): string[] => ['.Bd -literal -offset indent', ...lines.split('\n').map(escape), '.Ed']

/** A line that roff takes as it is. */
function escape(line: string): string {
  const plain = line.replaceAll('\\', '\\e').replaceAll('--', '\\-\\-')
  return /^[.']/.test(plain) ? `\\&${plain}` : plain
}
