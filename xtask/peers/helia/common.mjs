// What both peers share: a libp2p node on loopback, and lines on standard input and output.

import { createInterface } from 'node:readline'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { identify } from '@libp2p/identify'
import { tcp } from '@libp2p/tcp'
import { tls } from '@libp2p/tls'

/** The configuration of a node that listens at an IP address, and may dial any other. */
export function config (ip = '127.0.0.1') {
  return {
    addresses: { listen: [`/ip4/${ip}/tcp/0`] },
    transports: [tcp()],
    // By noise when it dials; by TLS when ipcr does.
    connectionEncrypters: [noise(), tls()],
    streamMuxers: [yamux()],
    connectionGater: { denyDialMultiaddr: () => false },
    services: { identify: identify() }
  }
}

/** Prints one object on a line of its own. */
export function say (object) {
  process.stdout.write(JSON.stringify(object) + '\n')
}

/** Prints where the node is reached, then runs one command after the other until standard input ends. */
export async function serve (libp2p, commands) {
  // Not `getMultiaddrs`, which leaves out what nobody has confirmed.
  const [address] = libp2p.components.transportManager.getAddrs()
  say({ address: `${address}/p2p/${libp2p.peerId}` })
  for await (const line of createInterface({ input: process.stdin })) {
    const [command, ...args] = line.trim().split(' ')
    try {
      say(await commands[command](...args))
    } catch (error) {
      say({ error: String(error?.message ?? error) })
    }
  }
  process.exit(0)
}
