import { writeFileSync } from 'node:fs'
import { descriptionFile, descriptionText } from './openapi.ts'

// Run by `npm run openapi`, after a change of the types of the control API.
writeFileSync(descriptionFile, descriptionText())
