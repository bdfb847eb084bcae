// Reads one question a line, {"accept": string or null, "offers": [string]}, and
// answers each with the offer that negotiator takes, or "".
const Negotiator = require('negotiator')

require('node:readline').createInterface({ input: process.stdin }).on('line', line => {
  const { accept, offers } = JSON.parse(line)
  const request = { headers: accept === null ? {} : { accept } }
  console.log(JSON.stringify(new Negotiator(request).mediaType(offers) ?? ''))
})
