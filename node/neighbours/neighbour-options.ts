import { P2pfsError } from '../../protocol/errors.ts'

/** Takes `REGION=VALUE` apart. @throws invalid */
export function parseNeighbour(text: string): { region: string; value: string } {
  const [, region, value] = /^([^=]+)=(.+)$/.exec(text) ?? []
  if (region === undefined || value === undefined)
    throw new P2pfsError('invalid', `${text} does not say which region it is of: it is written REGION=...`)
  return { region, value }
}

/** The neighbour regions of the options, each with its addresses and its key. @throws invalid for a key of no region */
export function neighbourOptions({
  neighbourRegion,
  neighbourKeyFile,
}: {
  neighbourRegion: readonly string[]
  neighbourKeyFile: readonly string[]
}): { region: string; bootstrap: string[]; keyFile: string | undefined }[] {
  const addresses = Map.groupBy(neighbourRegion.map(parseNeighbour), ({ region }) => region)
  const keys = new Map(neighbourKeyFile.map(parseNeighbour).map(({ region, value }) => [region, value]))
  for (const region of keys.keys())
    if (!addresses.has(region))
      throw new P2pfsError('invalid', `--neighbour-key-file names ${region}, and no --neighbour-region does`)
  return [...addresses].map(([region, items]) => {
    return { region, bootstrap: items.map(({ value }) => value), keyFile: keys.get(region) }
  })
}
