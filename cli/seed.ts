import { resolve } from 'node:path'
import type { SeedRequest, SeedResult } from '../node/control/api.ts'
import { call } from '../node/control/client.ts'
import { absoluteImage, commonHelp, parseCommon, platformHelp } from './arguments.ts'
import { formatSize } from './size.ts'

const help = `Makes an image whole on this host, so that it and its peers can mount it without the registry.
Ends when every chunk is on the disk. Seeding what is here already is quick: it only asks whether the tag has moved.

Usage: p2pfs seed IMAGE [OPTION...]

  IMAGE  as Docker writes it (debian:12, host:5000/app@sha256:...) or oci:DIR[:TAG], an OCI layout on disk

${platformHelp}
${commonHelp}
`

export async function run(argv: string[]): Promise<number> {
  const parsed = parseCommon(argv, help, ['IMAGE'])
  if (parsed === undefined) return 0
  const request: SeedRequest = {
    image: absoluteImage(parsed.positionals[0] ?? '', resolve),
    ...(parsed.platform === undefined ? {} : { platform: parsed.platform }),
  }
  const bar = process.stderr.isTTY && !parsed.json ? await progressBar() : undefined
  try {
    const result = await call<SeedResult>('POST', '/seed', request, {
      socket: parsed.control,
      ...(bar === undefined ? {} : { onProgress: bar.show }),
    })
    bar?.end()
    if (parsed.json) process.stdout.write(`${JSON.stringify(result)}\n`)
    else process.stdout.write(`${result.reference} (${result.platform}): ${formatSize(result.sizeBytes)} whole on this host, rootfs ${result.digest}\n`)
  } finally {
    bar?.end()
  }
  return 0
}

interface Bar {
  show: (progress: { step: string; doneBytes: number; totalBytes: number }) => void
  end: () => void
}

async function progressBar(): Promise<Bar> {
  const { default: progress } = await import('cli-progress')
  const bar = new progress.SingleBar({ format: '{step} [{bar}] {percentage}%  {done} of {size}  ETA {eta_formatted}', hideCursor: true })
  let step: string | undefined
  return {
    show: (now) => {
      const payload = { step: now.step, done: formatSize(now.doneBytes), size: formatSize(now.totalBytes) }
      if (step !== now.step) {
        bar.stop()
        bar.start(now.totalBytes, now.doneBytes, payload)
        step = now.step
      } else bar.update(now.doneBytes, payload)
    },
    end: () => bar.stop(),
  }
}
