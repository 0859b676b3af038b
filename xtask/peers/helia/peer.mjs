// A Helia node that fetches whole DAGs by Bitswap, and serves what it holds.
//
// Commands, each answered with one line: `connect ADDRESS`, `fetch CID`.

import { withBitswap } from '@helia/bitswap'
import { withLibp2pLight } from '@helia/libp2p'
import * as dagPb from '@ipld/dag-pb'
import { multiaddr } from '@multiformats/multiaddr'
import { MemoryBlockstore } from 'blockstore-core'
import { createHeliaLight } from 'helia'
import { CID } from 'multiformats/cid'
import { config, serve } from './common.mjs'

/** Blocks that are asked for at once. */
const AT_ONCE = 32
/** How long one block may take, in milliseconds. */
const LIMIT = 60_000

const helia = withBitswap(withLibp2pLight(createHeliaLight({ blockstore: new MemoryBlockstore() }), config()))
await helia.start()

/** Fetches a DAG; says how much it was, and the longest time without a block. */
async function fetch (text) {
  const began = performance.now()
  const open = [CID.parse(text)]
  const seen = new Set(open.map(String))
  const running = new Set()
  let [blocks, bytes, stall, last] = [0, 0, 0, began]
  const one = async (cid) => {
    const data = await collect(helia.blockstore.get(cid, { signal: AbortSignal.timeout(LIMIT) }))
    const now = performance.now()
    stall = Math.max(stall, now - last)
    last = now
    blocks += 1
    bytes += data.byteLength
    if (cid.code !== dagPb.code) return
    for (const { Hash } of dagPb.decode(data).Links) {
      if (!seen.has(Hash.toString())) {
        seen.add(Hash.toString())
        open.push(Hash)
      }
    }
  }
  while (open.length > 0 || running.size > 0) {
    while (open.length > 0 && running.size < AT_ONCE) {
      const task = one(open.shift()).finally(() => running.delete(task))
      running.add(task)
    }
    await Promise.race(running)
  }
  return { blocks, bytes, stall: stall / 1000, seconds: (performance.now() - began) / 1000 }
}

/** A block, which the store gives as bytes or piece by piece. */
async function collect (source) {
  const data = await source
  if (data instanceof Uint8Array) return data
  const parts = []
  for await (const part of data) parts.push(part.subarray())
  return parts.length === 1 ? parts[0] : Buffer.concat(parts)
}

await serve(helia.libp2p, {
  connect: async (address) => {
    await helia.libp2p.dial(multiaddr(address))
    return {}
  },
  fetch
})
