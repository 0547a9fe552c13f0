import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PeerStanding, standings } from '../../../node/peers/peer-standing.ts'

function standing(): { peer: PeerStanding; pass: (ms: number) => void } {
  let nowMs = 0
  return { peer: new PeerStanding({ now: () => nowMs }), pass: (ms) => void (nowMs += ms) }
}

test('a peer that has delivered stands before one of which nothing is known', () => {
  const { peer } = standing()
  assert.equal(peer.current, standings.unproven)
  peer.answered()
  assert.equal(peer.current, standings.unproven, 'an answer is no chunk')
  peer.delivered()
  assert.equal(peer.current, standings.proven)
})

test('a peer that fell silent is asked last for half a minute, or until it answers anything in time', () => {
  const { peer, pass } = standing()
  peer.delivered()
  peer.fellSilent()
  pass(29_999)
  assert.equal(peer.current, standings.silent)
  pass(1)
  assert.equal(peer.current, standings.proven)
  peer.fellSilent()
  peer.gotOn()
  assert.equal(peer.current, standings.silent, 'a late answer is not in time')
  peer.answered()
  assert.equal(peer.current, standings.proven)
})

test('many who notice one silence are one; three silences in a row, and only a chunk redeems it, or minutes', () => {
  const { peer, pass } = standing()
  for (let i = 0; i < 100; i++) peer.fellSilent()
  assert.equal(peer.current, standings.silent)
  for (let i = 0; i < 2; i++) {
    pass(1_000)
    peer.fellSilent()
  }
  assert.equal(peer.current, standings.lost)
  peer.answered()
  assert.equal(peer.current, standings.lost)
  pass(119_999)
  assert.equal(peer.current, standings.lost)
  pass(1)
  assert.equal(peer.isSilent, false)
  peer.fellSilent()
  peer.delivered()
  assert.equal(peer.current, standings.proven)
  for (let i = 0; i < 40; i++) {
    peer.fellSilent()
    pass(1_000)
  }
  pass(10 * 60_000)
  assert.equal(peer.isSilent, false, 'ten minutes at most')
})

test('a peer that fails is asked last for ten seconds, one that fails often for ten minutes', () => {
  const { peer, pass } = standing()
  peer.delivered()
  peer.failed()
  pass(9_999)
  assert.equal(peer.current, standings.failing)
  pass(1)
  assert.equal(peer.current, standings.proven)
  for (let i = 0; i < 16; i++) peer.failed()
  pass(10 * 60_000 - 1)
  assert.equal(peer.current, standings.failing)
  pass(1)
  assert.equal(peer.current, standings.proven)
})

test('a slow peer that gets on between its silences is never given up', () => {
  const { peer, pass } = standing()
  for (let i = 0; i < 20; i++) {
    pass(1_500)
    peer.fellSilent()
    pass(1_500)
    peer.gotOn()
    assert.equal(peer.current, standings.silent)
  }
})
