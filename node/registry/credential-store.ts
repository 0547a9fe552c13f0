export interface Credentials {
  username: string
  password: string
  /** An OAuth2 refresh token in place of name and password. */
  identityToken: string | undefined
  /** A bearer token that is sent as it is. */
  registryToken?: string | undefined
}

export interface FindCredentialsOptions {
  /** Tools keep credentials for a part of a registry too. */
  repository: string
  signal: AbortSignal
}

export interface CredentialStore {
  /** The credentials for a registry; undefined where there are none: it is asked without. */
  find: (registry: string, options: FindCredentialsOptions) => Promise<Credentials | undefined>
  /**
   * Whether there is an entry for this registry, or for a part of it that the repository is in. A store of credentials
   * for whatever registry, which has to be asked, does not count. Without this method there is none.
   */
  names?: (registry: string, options: Pick<FindCredentialsOptions, 'repository'>) => Promise<boolean>
}
