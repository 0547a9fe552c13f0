import assert from 'node:assert/strict'
import { test } from 'node:test'
import { plot } from '../../../../netlab/simulator/plots.ts'

test('equal steps on the axis of hosts are equal factors, and labels do not stand on each other', () => {
  const svg = plot('Title', 'seconds', [
    { name: 'last', colour: 'red', points: [10, 100, 1000].map((x) => ({ x, y: 1 })) },
    { name: 'first', colour: 'blue', points: [10, 100, 1000].map((x) => ({ x, y: 1 })) },
  ])
  const places = [...svg.matchAll(/<circle cx="([\d.]+)"/g)].map(([, x]) => Number(x)).slice(0, 3)
  assert.ok(Math.abs(places[1]! - places[0]! - (places[2]! - places[1]!)) < 0.2, String(places))
  const labels = [...svg.matchAll(/y="([\d.]+)" fill="(?:red|blue)">/g)].map(([, y]) => Number(y))
  assert.equal(labels.length, 2)
  assert.ok(Math.abs(labels[0]! - labels[1]!) >= 12, String(labels))
})

test('one point, and none above zero, make a plot all the same', () => {
  const svg = plot('Title', 'MB', [{ name: 'sent', colour: 'red', points: [{ x: 10, y: 0 }] }])
  assert.ok(!svg.includes('NaN') && !svg.includes('Infinity'), svg)
})
