import { readFile } from 'node:fs/promises'
import type { PlainAnswer, PlainAnswers } from '../control/plain-answers.ts'
import type { PageView } from './page-view.ts'

/** Files of the page, by path; each with its content type. */
const files: ReadonlyMap<string, readonly [file: string, type: string]> = new Map([
  ['/', ['index.html', 'text/html; charset=utf-8']],
  ['/page.css', ['page.css', 'text/css; charset=utf-8']],
  ['/page.js', ['page.js', 'text/javascript; charset=utf-8']],
  ['/icon.svg', ['icon.svg', 'image/svg+xml']],
])
/** The page's data is made anew after this time (ms): however many look, the daemon has the work of one. */
const freshMs = 2_000

/** The status page: static files, and what they show as JSON. */
export class StatusPage implements PlainAnswers {
  readonly #view: Pick<PageView, 'make'>
  readonly #signal: AbortSignal
  readonly #now: () => number
  readonly #files = new Map<string, Promise<Uint8Array>>()
  #made: { atMs: number; json: Promise<string> } | undefined

  constructor(
    { view }: { view: Pick<PageView, 'make'> },
    { signal, now = () => performance.now() }: { signal: AbortSignal; now?: () => number },
  ) {
    this.#view = view
    this.#signal = signal
    this.#now = now
  }

  async answer(path: string): Promise<PlainAnswer | undefined> {
    if (path === '/status.json')
      return { status: 200, type: 'application/json; charset=utf-8', body: await this.#json() }
    const [file, type] = files.get(path) ?? []
    if (file === undefined || type === undefined) return undefined
    const body = this.#files.get(path) ?? readFile(new URL(`./page/${file}`, import.meta.url))
    this.#files.set(path, body)
    return { status: 200, type, body: await body }
  }

  async #json(): Promise<string> {
    const nowMs = this.#now()
    if (this.#made === undefined || nowMs - this.#made.atMs >= freshMs) {
      const json = this.#view.make({ signal: this.#signal }).then((view) => JSON.stringify(view))
      this.#made = { atMs: nowMs, json }
    }
    return await this.#made.json
  }
}
