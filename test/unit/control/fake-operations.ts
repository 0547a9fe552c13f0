import { endpoints } from '../../../node/control/endpoints.ts'
import type { OperationOptions, Operations } from '../../../node/control/operations.ts'

/** One call of an operation. */
export interface Call {
  operation: string
  request: object
  options: OperationOptions | undefined
}

/** Operations that note every call, and answer with what `answer` makes of it. */
export class FakeOperations {
  readonly calls: Call[] = []
  answer: (call: Call) => Promise<object> = async ({ request }) => request

  readonly operations = Object.fromEntries(
    Object.keys(endpoints).map((operation) => [
      operation,
      {
        run: async (request: object = {}, options?: OperationOptions) => {
          const call = { operation, request, options }
          this.calls.push(call)
          return await this.answer(call)
        },
      },
    ]),
  ) as unknown as Operations
}
