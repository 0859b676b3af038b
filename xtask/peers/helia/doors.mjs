// `doors.mjs PORT IP…`: listens, and tells of everybody who comes.

import { createSocket } from 'node:dgram'
import { createServer } from 'node:net'

const say = (object) => process.stdout.write(JSON.stringify(object) + '\n')
const [port, ...addresses] = process.argv.slice(2)
const open = addresses.map(async (address) => {
  const tcp = createServer((socket) => {
    say({ knock: address })
    socket.on('error', () => {})
  })
  await new Promise(resolve => tcp.listen(Number(port), address, resolve))
  const udp = createSocket('udp4').on('message', () => say({ knock: address }))
  await new Promise(resolve => udp.bind(Number(port), address, resolve))
})
await Promise.all(open)
say({ open: open.length })
