// `router.mjs IP PORT ADDRESS…`: a delegated router (Delegated Routing V1 HTTP API) that says of everything that whoever is at these
// addresses, each ending in `/p2p/<peer>`, has it. Prints where it is reached, and how often it was asked, for each line that it reads.

import { createServer } from 'node:http'
import { createInterface } from 'node:readline'

const say = (object) => process.stdout.write(JSON.stringify(object) + '\n')
const [ip, port, ...addresses] = process.argv.slice(2)
const holders = addresses.map(address => {
  const [at, peer] = address.split('/p2p/')
  return { Schema: 'peer', ID: peer, Addrs: [at], Protocols: ['transport-bitswap'] }
})
let asked = 0
const server = createServer((request, response) => {
  if (!request.url.startsWith('/routing/v1/providers/')) return response.writeHead(404).end()
  asked += 1
  response.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify({ Providers: holders }))
})
server.listen(Number(port), ip, () => say({ url: `http://${ip}:${port}` }))
createInterface({ input: process.stdin }).on('line', () => say({ asked }))
