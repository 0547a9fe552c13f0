/** Stands in pins of `p2pfs pin` for the id of a seed job: no job has it. */
export const operatorPinJob = '0'.repeat(32)

/** The end of a pin that has none (ms since 1970): the last moment of the year 9999. */
export const foreverMs = 253_402_300_799_999
