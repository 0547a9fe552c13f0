import { isAbsolute, normalize } from 'node:path'
import { parseDigest, type Digest } from '../../protocol/digest.ts'
import { P2pfsError } from '../../protocol/errors.ts'
import type { Caller } from './caller.ts'

/** An image in a registry. */
export interface RegistryReference {
  kind: 'registry'
  /** `docker.io`, `host`, `host:5000`, `[::1]:5000`. */
  registry: string
  /** `library/debian`. */
  repository: string
  /** Undefined where only a digest is given. */
  tag: string | undefined
  /** Wins over the tag. */
  digest: Digest | undefined
  /** The caller whose credentials its registry is asked with; by default those of this host. No part of the name. */
  caller?: Caller
}

/** An image in an OCI layout on disk. */
export interface LayoutReference {
  kind: 'layout'
  /** Absolute. */
  directory: string
  /** Undefined for the layout's only image, or the one called latest. */
  tag: string | undefined
}

/** An image made on a host of the region, from a tree or a tar. */
export interface LocalReference {
  kind: 'local'
  /** `app:v2`. */
  name: string
}

export type Reference = RegistryReference | LayoutReference | LocalReference

const host = /^(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?$/
/** Whether a text is a registry as references name it: HOST or HOST:PORT. */
export const isRegistryName = (text: string): boolean => host.test(text)

const component = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/
const localName = /^[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?$/
const tagPattern = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/
/** Registry and repository together: distribution's NameTotalLengthMax (characters). */
const maxNameLength = 255

/**
 * Parses a reference as users type it: like Docker (distribution/reference) `debian`, `debian:12`,
 * `host:5000/app@sha256:...`; `oci:DIR[:TAG]`; or `local:NAME` for an image that was imported on a host.
 * @throws invalid saying what is wrong
 */
export function parseReference(text: string): Reference {
  const fail = (why: string): never => {
    throw new P2pfsError('invalid', `not an image reference: ${JSON.stringify(text.slice(0, 300))}: ${why}`)
  }
  if (text.startsWith('oci:')) return parseLayout(text.slice(4), fail)
  if (text.startsWith('local:')) return parseLocal(text.slice(6), fail)
  const [named = '', digestText, ...more] = text.split('@')
  if (more.length > 0) fail('more than one @')
  let digest: Digest | undefined
  if (digestText !== undefined) {
    try {
      digest = parseDigest(digestText)
    } catch {
      fail('after @ stands sha256: and 64 hex digits')
    }
  }
  const colon = named.lastIndexOf(':')
  const hasTag = colon > named.lastIndexOf('/')
  const name = hasTag ? named.slice(0, colon) : named
  const givenTag = hasTag ? named.slice(colon + 1) : undefined
  if (name === '') fail('the name is empty')
  const scheme = /^(?:https?|docker):(?:\/\/)?/.exec(text)
  if (scheme !== null) fail(`it begins with the registry or the repository: leave out ${scheme[0]}`)
  if (givenTag !== undefined && !tagPattern.test(givenTag))
    fail('a tag has letters, digits, _ . - and at most 128 of them')
  const [first = '', ...rest] = name.split('/')
  const isHost =
    rest.length > 0 &&
    (first.includes('.') || first.includes(':') || first === 'localhost' || first !== first.toLowerCase())
  const registry = isHost ? first.replace(/^index\.docker\.io$/, 'docker.io') : 'docker.io'
  if (!host.test(registry) || Number(/:(\d+)$/.exec(registry)?.[1] ?? 0) > 65_535)
    fail(`${JSON.stringify(registry)} is not a host`)
  const path = isHost ? rest : [first, ...rest]
  const wrong = path.find((part) => !component.test(part))
  if (wrong !== undefined)
    fail(
      wrong === wrong.toLowerCase()
        ? `${JSON.stringify(wrong)} is not a name`
        : `a repository name is in lower case: ${path.join('/').toLowerCase()}`,
    )
  const repository = registry === 'docker.io' && path.length === 1 ? `library/${path.join('/')}` : path.join('/')
  if (registry.length + repository.length > maxNameLength) fail(`longer than ${maxNameLength} characters`)
  return {
    kind: 'registry',
    registry,
    repository,
    tag: givenTag ?? (digest === undefined ? 'latest' : undefined),
    digest,
  }
}

function parseLocal(name: string, fail: (why: string) => never): LocalReference {
  if (name === '') return fail('local: is followed by a name')
  if (name.length > maxNameLength || !localName.test(name))
    return fail('a local name has lower-case letters, digits, and . _ - / between them, then maybe a tag')
  return { kind: 'local', name }
}

function parseLayout(text: string, fail: (why: string) => never): LayoutReference {
  const colon = text.lastIndexOf(':')
  const hasTag = colon > text.lastIndexOf('/')
  const directory = hasTag ? text.slice(0, colon) : text
  const tag = hasTag ? text.slice(colon + 1) : undefined
  if (directory === '') return fail('oci: is followed by a directory')
  if (tag === '') return fail('the tag is empty')
  if (!isAbsolute(directory)) return fail('the directory is not an absolute path')
  return { kind: 'layout', directory: normalize(directory).replace(/(.)\/$/, '$1'), tag }
}

/** The caller who asks for the image with credentials of his own, if there is one. */
export function callerOf(reference: Reference): Caller | undefined {
  return reference.kind === 'registry' ? reference.caller : undefined
}

/** Equal for images of one repository: who may read one of them may read all. */
export function repositoryOf(reference: Reference): string {
  return reference.kind === 'registry' ? `${reference.registry}/${reference.repository}` : formatReference(reference)
}

/** The canonical form: equal for references that mean the same image, whoever asks for it. */
export function formatReference(reference: Reference): string {
  if (reference.kind === 'local') return `local:${reference.name}`
  if (reference.kind === 'layout')
    return `oci:${reference.directory}${reference.tag === undefined ? '' : `:${reference.tag}`}`
  const { registry, repository, tag, digest } = reference
  const name = `${registry}/${repository}`
  return digest === undefined ? `${name}:${tag ?? 'latest'}` : `${name}@${digest}`
}
