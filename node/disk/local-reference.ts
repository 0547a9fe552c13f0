/** Whether the reference names an image that is in no registry. */
export const isOfLocal = (reference: string): boolean => reference.startsWith('local:')
