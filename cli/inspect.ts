import { resolve } from 'node:path'
import type { InspectResult } from '../node/control/api.ts'
import { call } from '../node/control/client.ts'
import { parseImageRequest } from '../node/control/requests.ts'
import { checkRequest, imageArgument, imageOptions, imageRequest } from './arguments.ts'
import { describeBelief } from './belief.ts'
import { describeCommand, parseCommand } from './command.ts'
import { printJson, printLines } from './output.ts'
import { formatAmount, formatSize } from './size.ts'

export const command = describeCommand({
  name: 'inspect',
  usage: ['IMAGE'],
  text: `Shows the layers, files, chunks and sizes of an image, how much of it is on this host, and what it
shares with other images on this host. Asks this host and its region; imports nothing.`,
  positionals: imageArgument,
  options: imageOptions('ext4'),
})

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommand(argv, command)
  const request = checkRequest(parseImageRequest, imageRequest(parsed.positionals[0] ?? '', parsed.values, resolve))
  const result = await call('inspect', request, { socket: parsed.control })
  if (parsed.json) printJson(result)
  else printLines(describe(result))
  return 0
}

function describe(image: InspectResult): string[] {
  return [
    `${image.reference} (${image.platform}, ${image.format})`,
    `rootfs        ${image.digest}`,
    `believed      ${describeBelief(image.belief)}`,
    `size          ${formatSize(image.sizeBytes)} in ${image.chunks} chunks`,
    `on this host  ${formatSize(image.localBytes)}`,
    `metadata      ${formatSize(image.metadataBytes)}`,
    ...(image.format === 'raw'
      ? [`layers        ${image.layers.length}, each a part of a raw image`]
      : describeLayers(image)),
    `shares with   ${image.sharing.length === 0 ? 'no other image on this host' : ''}`,
    ...image.sharing.map(
      ({ reference, platform, sharedBytes, sharedChunks }) =>
        `  ${reference} (${platform}): ${formatAmount({ bytes: sharedBytes, chunks: sharedChunks })}`,
    ),
  ]
}

function describeLayers({ layers }: InspectResult): string[] {
  return [
    'layers',
    ...layers.map(
      ({ diffId, compressedBytes, tarBytes, entries, dataBytes, chunks, localBytes }) =>
        `  ${diffId}: ${formatSize(compressedBytes)} in the registry, tar ${formatSize(tarBytes)}, ` +
        `files ${formatAmount({ bytes: dataBytes, chunks })}, ${formatSize(localBytes)} here; ${describeEntries(entries)}`,
    ),
  ]
}

function describeEntries(entries: Record<string, number>): string {
  const counted = Object.entries(entries).map(([type, count]) => `${count} ${type}`)
  return counted.length === 0 ? 'no entries' : counted.join(', ')
}
