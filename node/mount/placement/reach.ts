import { stat } from 'node:fs/promises'
import { ancestorsOf, isChangeable, keepsOthersOut, type DirectoryAccess } from '../../base/directory-access.ts'
import type { RunTool } from './run-tool.ts'

/** The type, the mode bits, and the mark of a security context that `ls -l` shows of a directory without a list. */
const withoutList = /^d[-rwxsStT]{9}\.? /

export interface ReachParts {
  run: RunTool
  stat?: (path: string) => Promise<DirectoryAccess>
}

/**
 * Tells whether users other than root can get to what is mounted on a directory.
 *
 * The directory's own mode says nothing: what is mounted on it has the mode that the image gives it. So one of the
 * directories above has to keep others out, and nobody else may be able to put another in its place.
 */
export class Reach {
  readonly #run: RunTool
  readonly #stat: (path: string) => Promise<DirectoryAccess>

  constructor({ run, stat: statOf = stat }: ReachParts) {
    this.#run = run
    this.#stat = statOf
  }

  /**
   * @param path absolute, without symbolic links
   * @returns for a person, what lets others in; undefined if only root gets there
   */
  async ofOthers(path: string): Promise<string | undefined> {
    for (const directory of ancestorsOf(path)) {
      const access = await this.#stat(directory)
      if (isChangeable(access)) return `others than root can change ${directory}`
      const answer = keepsOthersOut(access)
      if (answer === 'yes' || (answer === 'unless listed' && !(await this.#mayHaveList(directory)))) return undefined
    }
    return `others than root can enter ${path}`
  }

  /** Whether an access control list may let others in: also if nobody can tell. */
  async #mayHaveList(directory: string): Promise<boolean> {
    const { ok, message } = await this.#run('ls', ['-ldn', '--', directory])
    return !ok || !withoutList.test(message)
  }
}
