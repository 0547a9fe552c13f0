import type { ImageNodes } from './image-nodes.ts'
import {
  asksToRead,
  encodeAttributes,
  encodeDirectory,
  encodeEntry,
  encodeInit,
  encodeOpen,
  encodeStatfs,
  errnos,
  opcodes,
  rootNodeId,
  type FuseRequest,
} from './protocol.ts'

/** The reply to a request: its body, or an error number. */
export type Answer = { body: Buffer } | { error: number }

const empty: Answer = { body: Buffer.alloc(0) }

/** Requests that are about one node, of which the kernel may have learned from an earlier daemon. */
const aboutNode: ReadonlySet<number> = new Set([
  opcodes.lookup,
  opcodes.getattr,
  opcodes.open,
  opcodes.readdir,
  opcodes.read,
  opcodes.access,
])

/** Whether the request is about an image that is not served. */
export function isUnknown(nodes: ImageNodes, { opcode, nodeId }: FuseRequest): boolean {
  return aboutNode.has(opcode) && nodeId !== rootNodeId && nodes.at(nodeId) === undefined
}

/**
 * Answers all requests but reads, and those that get no reply. A lookup that is answered with an entry is a reference
 * from then on.
 */
export function answer(nodes: ImageNodes, { opcode, nodeId, uid, body }: FuseRequest): Answer {
  switch (opcode) {
    case opcodes.lookup: {
      const found = nodes.lookup(nodeId, body.toString('latin1', 0, body.length - 1))
      if (found === undefined) return { error: errnos.ENOENT }
      nodes.at(found.nodeId)?.reference()
      return { body: encodeEntry(found) }
    }
    case opcodes.getattr: {
      const found = nodes.attributes(nodeId)
      return found === undefined ? { error: errnos.ENOENT } : { body: encodeAttributes(found) }
    }
    // The only gate: the mount has no default_permissions, so the kernel asks here and looks at no mode.
    case opcodes.open:
      return nodes.at(nodeId)?.mayOpen(uid) === true ? { body: encodeOpen() } : { error: errnos.EACCES }
    case opcodes.access:
      return mayAccess(nodes, nodeId, uid, body) ? empty : { error: errnos.EACCES }
    case opcodes.opendir:
      return { body: Buffer.alloc(16) }
    case opcodes.readdir:
      return {
        body: encodeDirectory(nodes.entries(nodeId), Number(body.readBigUInt64LE(8)), body.readUInt32LE(16)),
      }
    case opcodes.release:
    case opcodes.releasedir:
    case opcodes.flush:
    case opcodes.destroy:
      return empty
    case opcodes.statfs:
      return { body: encodeStatfs() }
    case opcodes.init:
      return { body: encodeInit(body) }
    default:
      return { error: errnos.ENOSYS }
  }
}

/** The answer to access(2) and chdir(2). Directories show names and sizes only, which every user who gets there may see. */
function mayAccess(nodes: ImageNodes, nodeId: number, uid: number, body: Buffer): boolean {
  if (nodes.attributes(nodeId)?.directory !== false) return true
  return nodes.at(nodeId)?.mayOpen(uid) === true && asksToRead(body)
}
