import { BackgroundVerifier } from '../images/background-verifier.ts'
import { FalseStatements } from '../images/false-statements.ts'
import { Importer } from '../images/importer.ts'
import { LayerRebuild } from '../images/layer-rebuild.ts'
import { RawImporter } from '../images/raw-importer.ts'
import { ImageResolver } from '../images/resolver.ts'
import { RunningImports } from '../images/running-imports.ts'
import { Stewards } from '../images/stewards.ts'
import type { DaemonContext } from './context.ts'
import type { DataParts } from './data.ts'

export interface ImageParts {
  resolver: ImageResolver
  importer: Importer
  rawImporter: RawImporter
  imports: RunningImports
  rebuild: LayerRebuild
  verifier: BackgroundVerifier
}

/** Makes what finds the rootfs of an image, imports it, and verifies it later. */
export function makeImages(
  { config, log }: DaemonContext,
  { storage, registries: { registry }, region: { network }, holdings, publications, layers, sources }: DataParts,
): ImageParts {
  const { catalog } = storage
  const { inventory, transactions } = holdings
  const { lies, trust, published } = publications
  const { limits, indexes, reader, ranges, layerTransactions } = layers
  const { membership, objects, peerId: own } = network
  const importer = new Importer({ registry, reader, indexes, transactions: layerTransactions, published, limits })
  const rawImporter = new RawImporter({ transactions, inventory })
  const imports = new RunningImports({ location: network.location })
  const stewards = new Stewards({
    peerId: own,
    membership,
    imports: network.imports,
    objects,
    trust,
    indexes,
    ranges,
    fetcher: sources.fetcher,
    log,
  })
  const rebuild = new LayerRebuild({ registry, limits })
  const falseStatements = new FalseStatements({ own, catalog, lies, membership, log })
  const signer = { key: own, sign: async (bytes: Uint8Array) => await network.sign(bytes) }
  const verifier = new BackgroundVerifier(
    { catalog, registry, rebuild, trust, lies: falseStatements, membership, signer, log },
    { enabled: config.verifyBelieved === 'on' },
  )
  const resolver = new ImageResolver(
    {
      catalog,
      region: objects,
      registry,
      published,
      trust,
      verifier,
      lies: falseStatements,
      identity: network,
      importer,
      imports,
      stewards,
      inventory,
      log,
    },
    { resolveBudgetMs: config.resolveBudget * 1000, tagMaxAgeMs: config.tagMaxAge * 1000 },
  )
  return { resolver, importer, rawImporter, imports, rebuild, verifier }
}
