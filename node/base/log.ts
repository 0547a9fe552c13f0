import { clip, escapeJson } from './hidden-characters.ts'

/**
 * Levels, the gravest first. A log writes its own level and those before it. To an operator they mean: error, a person must
 * act; warn, a person may have to; info, rare events of the daemon's life; debug, each request.
 */
export const logLevels = ['error', 'warn', 'info', 'debug'] as const
export type LogLevel = (typeof logLevels)[number]
export type LogFields = Record<string, unknown>

/** A constant message and structured fields; an Error among the fields is written with its code and cause. */
export type Log = Record<LogLevel, (message: string, fields?: LogFields) => void> & {
  /** A log that adds `fields` to each line. */
  child: (fields: LogFields) => Log
}

/** A text of a field, such as the message of a peer's error, is cut beyond this (characters). */
const maxTextLength = 4096
/** So many items of a list are written. */
const maxItems = 100
/** A line that is still longer has only the beginning of its fields, as text (characters). */
const maxLineLength = 65_536

/**
 * JSON lines: `{"time", "level", "message", ...fields}`. Their length is bounded, and whatever the fields have in them,
 * a line is printable, and is one line.
 */
export function createLog(level: LogLevel, write: (line: string) => void, common: LogFields = {}): Log {
  const lines = logLevels.map((name, rank) => {
    const emit = (message: string, fields: LogFields = {}): void => {
      if (rank > logLevels.indexOf(level)) return
      const head = { time: new Date().toISOString(), level: name, message, ...common }
      const line = escapeJson(JSON.stringify({ ...head, ...fields }, plain))
      const cut = (): string => escapeJson(JSON.stringify({ ...head, cut: line.slice(0, maxTextLength) }, plain))
      write(`${line.length <= maxLineLength ? line : cut()}\n`)
    }
    return [name, emit] as const
  })
  return {
    ...(Object.fromEntries(lines) as Record<LogLevel, Log['error']>),
    child: (fields) => createLog(level, write, { ...common, ...fields }),
  }
}

/** The log of a part of this process, on its standard error. @param level one of {@link logLevels} */
export function stderrLog(level: string, part: string): Log {
  // A reader of the log that ends, such as logger(1), must not end the daemon and its mounts.
  if (process.stderr.listenerCount('error') === 0) process.stderr.on('error', () => undefined)
  return createLog(level as LogLevel, (line) => process.stderr.write(line), { part })
}

/** A log that says nothing: for tests. */
export const silentLog: Log = createLog('error', () => undefined)

function plain(_key: string, value: unknown): unknown {
  if (value instanceof Error) {
    return {
      name: value.name,
      message: value.message,
      ...('code' in value ? { code: value.code } : {}),
      ...('details' in value && typeof value.details === 'object' ? value.details : {}),
      ...(value.cause === undefined ? {} : { cause: value.cause }),
      // Errors of the operating system say all in their message.
      ...(value.name === 'TypeError' || (value.name === 'Error' && !('syscall' in value))
        ? { stack: value.stack }
        : {}),
    }
  }
  if (typeof value === 'string') return clip(value, maxTextLength)
  if (Array.isArray(value) && value.length > maxItems)
    return [...(value as unknown[]).slice(0, maxItems), `${value.length - maxItems} more`]
  return typeof value === 'bigint' ? value.toString() : value
}
