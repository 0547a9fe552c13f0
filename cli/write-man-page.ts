import { commands } from './commands.ts'
import { describeCommands } from './described-commands.ts'
import { manPage } from './man-page.ts'
import { printHelp } from './output.ts'

/** Prints the manual: `npm run man > p2pfs.1`. With SOURCE_DATE_EPOCH the page is the same every time. */
const epoch = process.env['SOURCE_DATE_EPOCH']
const date = epoch === undefined ? new Date() : new Date(Number(epoch) * 1000)
printHelp(manPage(await describeCommands(commands), date.toISOString().slice(0, 10)))
