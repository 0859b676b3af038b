// A peer that speaks Bitswap and Kademlia by hand, and not as it should.
//
// `raw.mjs MODE [IP]`; what the modes do is said with `LIES`. Commands, each answered with one line:
// `connect ADDRESS`; `ask ADDRESS FILE`: want the CIDs of a file and take nothing of what comes;
// `streams`: how many streams were opened to send what was wanted; `provide ADDRESS…`: name these as holders of
// everything.

import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { CID } from 'multiformats/cid'
import * as raw from 'multiformats/codecs/raw'
import { sha256 } from 'multiformats/hashes/sha2'
import { config, serve } from './common.mjs'

const BITSWAP = '/ipfs/bitswap/1.2.0'
const KADEMLIA = '/ipfs/kad/1.0.0'

// --- Protobuf, as much as these messages need.

function varint (number) {
  const bytes = []
  while (number >= 0x80) {
    bytes.push((number % 0x80) | 0x80)
    number = Math.floor(number / 0x80)
  }
  return Buffer.from([...bytes, number])
}

const number = (field, value) => Buffer.concat([varint(field << 3), varint(value)])
const bytes = (field, value) => Buffer.concat([varint((field << 3) | 2), varint(value.length), value])
const frame = (message) => Buffer.concat([varint(message.length), message])

/** Reads a varint at an offset; undefined if it is not whole. */
function readVarint (buffer, at) {
  let value = 0
  for (let index = 0; at + index < buffer.length; index++) {
    value += (buffer[at + index] & 0x7f) * 2 ** (7 * index)
    if (buffer[at + index] < 0x80) return [value, at + index + 1]
  }
}

/** The fields of a message, as pairs of number and value. */
function * fields (buffer) {
  for (let at = 0; at < buffer.length;) {
    let key, value
    ;[key, at] = readVarint(buffer, at)
    ;[value, at] = readVarint(buffer, at)
    if ((key & 7) === 2) {
      yield [key >> 3, buffer.subarray(at, at + value)]
      at += value
    } else {
      yield [key >> 3, value]
    }
  }
}

/** What a message wants and does not cancel. */
function wanted (message) {
  const cids = []
  for (const [field, wantlist] of fields(message)) {
    if (field !== 1) continue
    for (const [field, entry] of fields(wantlist)) {
      const want = field === 1 ? Object.fromEntries(fields(entry)) : {}
      if (want[1] !== undefined && !want[3]) cids.push(CID.decode(want[1]))
    }
  }
  return cids
}

const want = (cid) => bytes(1, Buffer.concat([bytes(1, cid.bytes), number(2, 1), number(5, 1)]))
const have = (cid) => bytes(4, bytes(1, cid.bytes))

/** The CID without its digest. */
function prefix (cid) {
  const { code, digest } = cid.multihash
  return Buffer.concat([cid.version, cid.code, code, digest.length].map(varint))
}

const block = (cid, data) => bytes(3, Buffer.concat([bytes(1, prefix(cid)), bytes(2, data)]))

// --- Lies. Each gets a peer, and the CIDs that it wants.

const pause = (time) => new Promise(resolve => setTimeout(resolve, time))

/** Sends on a stream; waits until most of what was sent has left. (`onDrain` comes back before.) */
async function send (stream, data) {
  stream.send(data)
  while (stream.status === 'open' && stream.writeBufferLength > 256 << 10) await pause(1)
}

async function reply (connection, message) {
  const stream = await connection.newStream(BITSWAP)
  await send(stream, frame(message))
  await stream.close()
}

/** Some block that is in order. */
const other = Buffer.from('a block that nobody asked for')
const otherCid = CID.createV1(raw.code, await sha256.digest(other))

const often = (make) => Array.from({ length: 4 }, make)

const LIES = {
  /** Other bytes than those of the block, so often that one want is enough to know it for what it is. */
  wrong: (connection, [cid]) => reply(connection, Buffer.concat(often(() => block(cid, randomBytes(100_000))))),
  /** A block that is in order, and another one. */
  other: (connection) => reply(connection, Buffer.concat(often(() => block(otherCid, other)))),
  /** A frame that is longer than any may be. */
  oversize: async (connection, cids) => {
    const stream = await connection.newStream(BITSWAP)
    await send(stream, varint(64 << 20))
    while (stream.status === 'open') await send(stream, block(cids[0], randomBytes(1 << 20)))
  },
  /** Blocks that nobody asked for, without an end. */
  flood: async (connection) => {
    while (connection.status === 'open') {
      const stream = await connection.newStream(BITSWAP)
      while (stream.status === 'open') {
        const data = randomBytes(256 << 10)
        await send(stream, frame(block(CID.createV1(raw.code, await sha256.digest(data)), data)))
      }
      await pause(100)
    }
  },
  /** A block of 256 KiB, one byte each second. */
  trickle: async (connection, cids) => {
    const stream = await connection.newStream(BITSWAP)
    const whole = frame(block(cids[0], randomBytes(256 << 10)))
    await send(stream, whole.subarray(0, 20))
    for (let at = 20; stream.status === 'open'; at++) {
      await send(stream, whole.subarray(at, at + 1))
      await pause(1000)
    }
  },
  /** That it has everything, and nothing more. */
  silent: (connection, cids) => reply(connection, Buffer.concat(cids.map(have))),
  /** Nothing at all: not even what comes is read. */
  deaf: undefined
}

// --- The node.

const [mode, ip] = process.argv.slice(2)
const libp2p = await createLibp2p(config(ip))
/** What is said of lost connections matters to the other side only. */
const ignore = () => {}
process.on('unhandledRejection', ignore)

/** How many Bitswap streams others have opened. */
let streams = 0

await libp2p.handle(BITSWAP, async (stream, connection) => {
  streams += 1
  const lie = LIES[mode]
  if (lie === undefined) return stream.pause()
  let busy = false
  for await (const message of messages(stream)) {
    const cids = wanted(message)
    if (cids.length === 0 || busy) continue
    // One endless answer to a stream is enough.
    busy = ['oversize', 'flood', 'trickle'].includes(mode)
    lie(connection, cids).catch(ignore)
  }
}, { maxInboundStreams: 1024, maxOutboundStreams: 1024 })

/** Where others say that this peer is. */
let provided = []

await libp2p.handle(KADEMLIA, async (stream) => {
  for await (const message of messages(stream)) {
    const asked = Object.fromEntries(fields(message))
    const parts = [number(1, asked[1] ?? 0), number(10, 0)]
    if (asked[2] !== undefined) parts.push(bytes(2, asked[2]))
    // GET_PROVIDERS: a provider for each address, so that none stands in for another.
    if (asked[1] === 3) parts.push(...provided.map(peer => bytes(9, peer)))
    await send(stream, frame(Buffer.concat(parts)))
  }
})

/** The messages on a stream. */
async function * messages (stream) {
  let buffer = Buffer.alloc(0)
  for await (const data of stream) {
    buffer = Buffer.concat([buffer, data.subarray()])
    for (let head; (head = readVarint(buffer, 0)) !== undefined && buffer.length >= head[0] + head[1];) {
      yield buffer.subarray(head[1], head[0] + head[1])
      buffer = buffer.subarray(head[0] + head[1])
    }
  }
}

await serve(libp2p, {
  connect: async (address) => {
    await libp2p.dial(multiaddr(address))
    return {}
  },
  ask: async (address, file) => {
    const cids = readFileSync(file, 'utf8').trim().split('\n').map(text => CID.parse(text))
    const connection = await libp2p.dial(multiaddr(address))
    const stream = await connection.newStream(BITSWAP)
    for (let at = 0; at < cids.length; at += 500) {
      await send(stream, frame(bytes(1, Buffer.concat(cids.slice(at, at + 500).map(want)))))
    }
    return { wants: cids.length }
  },
  streams: async () => ({ streams }),
  provide: async (...addresses) => {
    const peer = (address) => {
      const [at, id] = address.split('/p2p/')
      return Buffer.concat([
        bytes(1, peerIdFromString(id).toMultihash().bytes), bytes(2, multiaddr(at).bytes), number(3, 1)
      ])
    }
    provided = addresses.map(peer)
    return { provided: provided.length }
  }
})
