export async function milliseconds(action: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now()
  await action()
  return performance.now() - startedAt
}

export async function seconds(action: () => Promise<unknown>): Promise<number> {
  return (await milliseconds(action)) / 1000
}

/** Runs all measures `runs` times, alternately from first to last and from last to first. */
export async function alternate(runs: number, ...measures: (() => Promise<void>)[]): Promise<void> {
  for (let i = 0; i < runs; i++) {
    for (const measure of i % 2 === 0 ? measures : measures.toReversed()) await measure()
  }
}
