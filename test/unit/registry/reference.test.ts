import assert from 'node:assert/strict'
import { test } from 'node:test'
import { formatReference, parseReference } from '../../../node/registry/reference.ts'
import { isP2pfsError } from '../../../protocol/errors.ts'

const digest = `sha256:${'0123456789abcdef'.repeat(4)}`

for (const [text, canonical] of [
  ['debian', 'docker.io/library/debian:latest'],
  ['debian:12', 'docker.io/library/debian:12'],
  ['user/app', 'docker.io/user/app:latest'],
  ['docker.io/debian', 'docker.io/library/debian:latest'],
  ['index.docker.io/debian', 'docker.io/library/debian:latest'],
  ['localhost/app:1', 'localhost/app:1'],
  ['localhost:5000/a/b/c', 'localhost:5000/a/b/c:latest'],
  ['host.example/app_x/y-z.1:Tag_1.2-3', 'host.example/app_x/y-z.1:Tag_1.2-3'],
  ['10.0.0.1:5000/app', '10.0.0.1:5000/app:latest'],
  ['[::1]:5000/app:2', '[::1]:5000/app:2'],
  [`debian@${digest}`, `docker.io/library/debian@${digest}`],
  [`host:5000/app:1@${digest}`, `host:5000/app@${digest}`],
  ['oci:/srv/image', 'oci:/srv/image'],
  ['oci:/srv/image:v1', 'oci:/srv/image:v1'],
  ['oci:/srv:5000/image', 'oci:/srv:5000/image'],
] as const) {
  test(`${text} means ${canonical}`, () => {
    assert.equal(formatReference(parseReference(text)), canonical)
    assert.equal(formatReference(parseReference(canonical)), canonical)
  })
}

for (const [text, why] of [
  ['', /empty/],
  ['Debian', /lower case: debian$/],
  ['host:5000/lab/App:v1', /lower case: lab\/app$/],
  ['docker://debian', /leave out docker:\/\/$/],
  ['https://host/app', /leave out https:\/\/$/],
  ['local:', /local: is followed by a name/],
  ['a//b', /"" is not a name/],
  ['debian:', /tag/],
  ['debian:a b', /tag/],
  ['debian@sha256:12', /64 hex/],
  [`a@${digest}@${digest}`, /more than one @/],
  ['-x.example/app', /not a host/],
  ['a'.repeat(256), /longer/],
  ['oci:', /directory/],
  ['oci:/x:', /tag is empty/],
] as const) {
  test(`${JSON.stringify(text.slice(0, 30))} is refused, saying why`, () => {
    assert.throws(
      () => parseReference(text),
      (error) => isP2pfsError(error, 'invalid') && why.test(error.message),
    )
  })
}
