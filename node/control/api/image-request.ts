/** Names a rootfs: an image, its platform and the format of the filesystem. */
export interface ImageRequest {
  image: string
  /** `OS/ARCH` or `OS/ARCH/VARIANT`. Default: the platform that the daemon is configured for. */
  platform?: string
  /** Default: ext4 for drives, erofs for trees. Raw images are found without it. */
  format?: string
}

/**
 * Credentials of the caller for the image's registry, and for no other one: a name and a password, or one of the tokens. An
 * empty object asks as somebody who has none. They are kept in memory, as long as what was asked for stands.
 */
export interface Auth {
  username?: string
  password?: string
  /** An OAuth2 refresh token. */
  identityToken?: string
  /** A bearer token that is sent as it is. */
  registryToken?: string
}

/** A request that may ask the image's registry with the caller's own credentials. */
export interface AuthorizedRequest extends ImageRequest {
  /** Default: the credentials of the daemon. */
  auth?: Auth
}
