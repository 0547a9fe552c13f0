import type { ImageRecord } from '../../protocol/image-record.ts'

/** Two names in one repository have the same key if they are of the same image in the same format. */
function imageKey({ reference, manifestDigest, platform, format }: ImageRecord): string {
  return [reference.replace(/@.*$|:[^:/]*$/, ''), manifestDigest, platform, format].join(' ')
}

export function isByDigest({ reference }: Pick<ImageRecord, 'reference'>): boolean {
  return reference.includes('@')
}

/** Whether two names, in one repository, are of the same image in the same format. */
export function isSameImage(a: ImageRecord, b: ImageRecord): boolean {
  return imageKey(a) === imageKey(b)
}

/** The names to show to people: those by digest, which seeds give, only where no tag is of the same image. */
export function namesToShow<Named extends ImageRecord>(records: readonly Named[]): Named[] {
  const tagged = new Set(records.filter((record) => !isByDigest(record)).map(imageKey))
  return records.filter((record) => !isByDigest(record) || !tagged.has(imageKey(record)))
}
