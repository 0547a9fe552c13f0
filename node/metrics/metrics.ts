import type { Figure } from './figure.ts'
import { hostFigures, type HostFiguresParts } from './host-figures.ts'
import { imageFigures, type ImageFiguresParts } from './image-figures.ts'
import { readFigures, type ReadFiguresParts } from './read-figures.ts'
import { trafficFigures, type TrafficFiguresParts } from './traffic-figures.ts'

export type FiguresParts = ReadFiguresParts & TrafficFiguresParts & ImageFiguresParts & HostFiguresParts

/** All figures of the daemon. */
export function figuresOf(parts: FiguresParts): Figure[] {
  return [...readFigures(parts), ...trafficFigures(parts), ...imageFigures(parts), ...hostFigures(parts)]
}

/** Makes the answer to `GET /metrics`. */
export class Metrics {
  readonly #figures: readonly Figure[]
  #text: (() => Promise<string>) | undefined

  constructor(figures: readonly Figure[]) {
    this.#figures = figures
  }

  /** The figures of now, in the text format of Prometheus. */
  async text(): Promise<string> {
    if (this.#text === undefined) {
      // Not before somebody asks: it takes as long to load as a fifth of the daemon's start.
      const { exposition } = await import('./exposition.ts')
      this.#text ??= exposition(this.#figures)
    }
    return await this.#text()
  }
}
