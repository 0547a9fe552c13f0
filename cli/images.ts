import type { ListedImage, PinReason } from '../node/control/api.ts'
import { call } from '../node/control/client.ts'
import { describeCommand, parseCommand } from './command.ts'
import { printJson, printLines } from './output.ts'
import { formatSize } from './size.ts'

export const command = describeCommand({
  name: 'images',
  usage: [''],
  text: `Lists the images of this host, those that were used last first: how much of each is here, and of that in layers that other
images here have, too; when it was used; why it is not evicted, where it is not; and where it is mounted.`,
  positionals: {},
  options: {},
})

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommand(argv, command)
  const result = await call('listImages', {}, { socket: parsed.control })
  if (parsed.json) printJson(result)
  else printLines(result.images.length === 0 ? ['no images'] : result.images.flatMap(describe))
  return 0
}

function describe(image: ListedImage): string[] {
  const { reference, platform, format, digest, sizeBytes, localBytes, sharedBytes, lastUsedAt, pins, mounts } = image
  const used = mounts.length > 0 ? 'in use' : lastUsedAt === undefined ? 'not used yet' : `last used ${lastUsedAt}`
  return [
    `${reference} (${platform}, ${format}): ${formatSize(localBytes)} of ${formatSize(sizeBytes)} here, ` +
      `${formatSize(sharedBytes)} of it shared; ${used}, ${digest}`,
    ...pins.map((pin) => `  stays: ${describePin(pin)}`),
    ...mounts.map((directory) => `  mounted on ${directory}`),
  ]
}

function describePin({ why, job, until }: PinReason): string {
  const end = until === undefined ? '' : `, until ${until}`
  switch (why) {
    case 'pin':
      return `p2pfs pin${end}`
    case 'seed':
      return `seed ${job}${end}`
    case 'hot':
      return `the region mounts it often${end}`
    case 'local':
      return 'it was made here, and may be nowhere else'
  }
}
