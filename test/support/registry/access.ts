import { randomBytes } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { failed, jsonAnswer, type Answer } from './backend.ts'

export interface User {
  username: string
  password: string
}

export interface AccessRules {
  /** Nobody is asked by default. */
  access?: { kind: 'basic' } | BearerAccess
  /** Who may log in; with `bearer` and no users, everybody gets tokens. */
  users?: readonly User[]
}

export interface BearerAccess {
  kind: 'bearer'
  /** After this a token is refused. */
  tokenLifeMs: number
  /** What the token service says; the truth, in whole seconds, by default. */
  expiresInSeconds?: number
}

/**
 * Who may do what at a registry of the lab: basic authentication, or a token service as distribution's specification
 * has it.
 */
export class RegistryAccess {
  /** May be changed at any time. */
  rules: AccessRules
  /** Scopes that tokens were asked for, in order. */
  readonly tokenScopes: string[] = []
  readonly #tokens = new Map<string, { scopes: Set<string>; endsAtMs: number }>()

  constructor(rules: AccessRules) {
    this.rules = rules
  }

  /** All tokens that are out are refused from now on. */
  revokeTokens(): void {
    this.#tokens.clear()
  }

  /** The refusal, with its challenge; undefined for what is allowed. */
  check(authorization: string | undefined, method: string, url: URL, origin: string): Answer | undefined {
    const { access } = this.rules
    if (access === undefined) return undefined
    if (access.kind === 'basic') {
      return this.#user(authorization) === undefined ? challenge('Basic realm="lab"') : undefined
    }
    const wanted = scopesFor(method, url)
    const token = this.#tokens.get(/^Bearer (.+)$/.exec(authorization ?? '')?.[1] ?? '')
    const scope = wanted.length === 0 ? '' : `,scope="${scopeText(wanted)}"`
    const parameters = `Bearer realm="${origin}/token",service="lab"${scope}`
    if (token === undefined || token.endsAtMs <= Date.now())
      return challenge(token === undefined ? parameters : `${parameters},error="invalid_token"`)
    if (!wanted.every((one) => token.scopes.has(one))) return challenge(`${parameters},error="insufficient_scope"`)
    return undefined
  }

  /** The token service: GET with basic authentication, POST with a refresh token, which is a password here. */
  async token(request: IncomingMessage, url: URL): Promise<Answer> {
    const { access, users = [] } = this.rules
    const form = request.method === 'POST' ? new URLSearchParams(await textOf(request)) : url.searchParams
    const scopes = form.get('scope')?.split(' ') ?? []
    this.tokenScopes.push(scopes.join(' '))
    const refresh = form.get('refresh_token')
    const user =
      refresh === null ? this.#user(request.headers.authorization) : users.find(({ password }) => password === refresh)
    // Who gives no credentials gets a token for what everybody may do, which is nothing where there are users.
    if (access?.kind !== 'bearer' || (users.length > 0 && user === undefined))
      return jsonAnswer(401, { details: 'incorrect username or password' })
    const token = randomBytes(16).toString('hex')
    this.#tokens.set(token, { scopes: new Set(scopes.flatMap(expand)), endsAtMs: Date.now() + access.tokenLifeMs })
    return jsonAnswer(200, {
      token,
      access_token: token,
      expires_in: access.expiresInSeconds ?? Math.floor(access.tokenLifeMs / 1000),
    })
  }

  #user(authorization: string | undefined): User | undefined {
    const encoded = /^Basic (.+)$/.exec(authorization ?? '')?.[1]
    if (encoded === undefined) return undefined
    const [username, ...rest] = Buffer.from(encoded, 'base64').toString().split(':')
    return this.rules.users?.find((user) => user.username === username && user.password === rest.join(':'))
  }
}

/** `repository:NAME:pull` and so on, one action each. */
function scopesFor(method: string, url: URL): string[] {
  const repository = /^\/v2\/(.+)\/(?:manifests|blobs|tags|referrers)\//.exec(url.pathname)?.[1]
  if (repository === undefined) return []
  const actions = method === 'GET' || method === 'HEAD' ? ['pull'] : ['pull', 'push']
  return actions.map((action) => `repository:${repository}:${action}`)
}

function expand(scope: string): string[] {
  const [, resource = '', actions = ''] = /^(.+):([^:]+)$/.exec(scope) ?? []
  return actions.split(',').map((action) => `${resource}:${action}`)
}

/** One resource, its actions with commas. */
function scopeText(scopes: readonly string[]): string {
  const [first = ''] = scopes
  return `${first.slice(0, first.lastIndexOf(':'))}:${scopes.map((scope) => scope.slice(scope.lastIndexOf(':') + 1)).join(',')}`
}

const challenge = (header: string): Answer => failed(401, 'UNAUTHORIZED', { 'www-authenticate': header })

async function textOf(request: IncomingMessage): Promise<string> {
  let text = ''
  for await (const piece of request.setEncoding('utf8')) text += piece as string
  return text
}
