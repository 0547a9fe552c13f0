import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { SimulationResult } from './simulation.ts'

interface Series {
  name: string
  colour: string
  points: { x: number; y: number }[]
}

/** Size of a plot and of the room around it (pixels). */
const size = { width: 640, height: 400, left: 70, right: 150, top: 40, bottom: 50 } as const

/** Writes `ready-times.svg` and `registry-bytes.svg`. */
export async function writePlots(directory: string, results: readonly SimulationResult[]): Promise<void> {
  const series = (name: string, colour: string, y: (result: SimulationResult) => number): Series => ({
    name,
    colour,
    points: results.map((result) => ({ x: result.hosts, y: y(result) })),
  })
  await mkdir(directory, { recursive: true })
  const times = plot('Time until containers are ready', 's', [
    series('last', '#b2182b', ({ readyMs }) => readyMs.last / 1000),
    series('median', '#2166ac', ({ readyMs }) => readyMs.median / 1000),
    series('first', '#4d9221', ({ readyMs }) => readyMs.first / 1000),
  ])
  const bytes = plot('Sent by the registry', 'MB', [
    series('sent', '#2166ac', ({ registryBytes }) => registryBytes / 1e6),
    series('one host alone', '#888888', ({ registryBytes, copies }) => registryBytes / copies / 1e6),
  ])
  await writeFile(join(directory, 'ready-times.svg'), times)
  await writeFile(join(directory, 'registry-bytes.svg'), bytes)
}

/** Lines over the number of hosts, whose axis is logarithmic. */
export function plot(title: string, unit: string, series: readonly Series[]): string {
  const { width, height, left, right, top, bottom } = size
  const points = series.flatMap((line) => line.points)
  const xs = points.map(({ x }) => Math.log10(x))
  const [minX, maxX] = [Math.min(...xs), Math.max(...xs)]
  const step = niceStep(Math.max(...points.map(({ y }) => y), 1e-9))
  const maxY = step * Math.ceil(Math.max(...points.map(({ y }) => y), 1e-9) / step)
  const toX = (x: number): number => left + ((Math.log10(x) - minX) / (maxX - minX || 1)) * (width - left - right)
  const toY = (y: number): number => height - bottom - (y / maxY) * (height - top - bottom)
  const text = (x: number, y: number, content: string, more = ''): string =>
    `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${more}>${content}</text>`
  const lines: string[] = [text(left, top - 16, `${title}, ${unit}`, 'font-size="15" font-weight="bold"')]
  for (let i = 0; i * step <= maxY * 1.001; i++) {
    const y = toY(i * step)
    lines.push(`<path d="M${left} ${y.toFixed(1)}H${width - right}" stroke="#dddddd"/>`)
    lines.push(text(left - 8, y + 4, String(Number((i * step).toPrecision(3))), 'text-anchor="end"'))
  }
  for (const x of new Set(points.map((point) => point.x)))
    lines.push(text(toX(x), height - bottom + 18, String(x), 'text-anchor="middle"'))
  lines.push(text((left + width - right) / 2, height - 10, 'hosts', 'text-anchor="middle"'))
  const labels = spread(series.map((line) => toY(line.points.at(-1)?.y ?? 0)))
  series.forEach((line, i) => {
    const places = line.points.map(({ x, y }) => `${toX(x).toFixed(1)},${toY(y).toFixed(1)}`)
    lines.push(`<polyline points="${places.join(' ')}" fill="none" stroke="${line.colour}" stroke-width="2"/>`)
    for (const place of places) {
      const [x, y] = place.split(',')
      lines.push(`<circle cx="${x}" cy="${y}" r="3" fill="${line.colour}"/>`)
    }
    lines.push(text(width - right + 10, labels[i]! + 4, line.name, `fill="${line.colour}"`))
  })
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">\n` +
    `<rect width="${width}" height="${height}" fill="white"/>\n${lines.join('\n')}\n</svg>\n`
  )
}

/** A step of 1, 2 or 5 times a power of ten that divides up to `max` into four to ten parts. */
function niceStep(max: number): number {
  const power = 10 ** Math.floor(Math.log10(max / 4))
  return [5, 2, 1].map((factor) => factor * power).find((step) => max / step >= 4) ?? power
}

/** Moves labels apart that would stand on each other. */
function spread(places: readonly number[]): number[] {
  const order = places.map((y, i) => ({ y, i })).toSorted((a, b) => a.y - b.y)
  const moved = [...places]
  let last = -Infinity
  for (const { y, i } of order) {
    last = Math.max(y, last + 14)
    moved[i] = last
  }
  return moved
}
