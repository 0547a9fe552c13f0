import { P2pfsError } from '../../protocol/errors.ts'

/** OpenSSL's codes for a chain that ends with an unknown authority: node:tls, "X509 certificate error codes". */
const unknownAuthority =
  /^(?:SELF_SIGNED_CERT_IN_CHAIN|DEPTH_ZERO_SELF_SIGNED_CERT|UNABLE_TO_VERIFY_LEAF_SIGNATURE|UNABLE_TO_GET_ISSUER_CERT(?:_LOCALLY)?)$/

/** The error for a request that brought no answer, or only a part of one, in terms of what to do. */
export function transportError(url: URL, cause: unknown): P2pfsError {
  const { host } = url
  const { message, code = '' } = cause as NodeJS.ErrnoException
  const details = { cause, host }
  if (unknownAuthority.test(code)) {
    return new P2pfsError(
      'denied',
      `the certificate of ${host} is from an authority that is not known here: name its file to the daemon with ` +
        `--registry-ca, or put it into /etc/docker/certs.d/${host}/ca.crt; then send SIGHUP to it`,
      details,
    )
  }
  if (/^(?:CERT_|ERR_TLS_CERT_)/.test(code))
    return new P2pfsError(
      'denied',
      `the certificate of ${host} is not good: ${message}; the registry needs one for this name that is in force, and this ` +
        'host a clock that is right',
      details,
    )
  if (/proxy.*\(407\)/i.test(message)) return proxyRefusal(host, details)
  const isTimeout = code.endsWith('_TIMEOUT')
  const isPlain = /wrong version number|EPROTO|packet length too long/.test(`${message} ${code}`)
  const why = isTimeout
    ? 'no connection in time'
    : isPlain
      ? 'it does not speak TLS'
      : code === 'ENOTFOUND'
        ? 'no such host; check the name of the registry'
        : code === 'EAI_AGAIN'
          ? 'the name server of this host does not answer; look at /etc/resolv.conf'
          : message || code || 'connection failed'
  const hint = isPlain ? `; if it speaks plain HTTP, name it to the daemon with --insecure-registry ${host}` : ''
  return new P2pfsError(isTimeout ? 'timeout' : 'unavailable', `cannot reach ${host}: ${why}${hint}`, details)
}

export function proxyRefusal(host: string, details: Record<string, unknown>): P2pfsError {
  return new P2pfsError(
    'denied',
    `the proxy refuses to reach ${host}: check the credentials in HTTP_PROXY and HTTPS_PROXY`,
    details,
  )
}
