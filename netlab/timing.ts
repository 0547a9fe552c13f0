export async function milliseconds(action: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now()
  await action()
  return performance.now() - startedAt
}

export async function seconds(action: () => Promise<unknown>): Promise<number> {
  return (await milliseconds(action)) / 1000
}

/** Runs both `runs` times, taking turns in going first. */
export async function alternate(runs: number, one: () => Promise<void>, other: () => Promise<void>): Promise<void> {
  for (let i = 0; i < runs; i++) {
    const order = i % 2 === 0 ? [one, other] : [other, one]
    for (const measure of order) await measure()
  }
}
