// The status page. It asks for /status.json and shows it. All text is set as text, never as markup.

/** How often the daemon is asked (ms), and how long an answer may take. */
const pollMs = 3_000
const answerMs = 10_000
/** A longer text of others, such as an image's name, is cut (characters). */
const maxTextLength = 160

const svgNamespace = 'http://www.w3.org/2000/svg'
const sources = ['registry', 'neighbour', 'peer', 'local']
const sourceNames = { local: 'this host', peer: 'peers', neighbour: 'neighbour regions', registry: 'registries' }

const byId = (id) => document.getElementById(id)

/** Others' text as it is shown: what would change how it is read is replaced, and what is too long is cut. */
function plain(value) {
  const text = String(value).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu, '\uFFFD')
  return text.length <= maxTextLength ? text : `${text.slice(0, maxTextLength)}…`
}

/** An element; `className` and attributes in `options`, children as elements or text. */
function element(name, options = {}, ...children) {
  const { className, ...attributes } = options
  const made = document.createElement(name)
  if (className !== undefined) made.className = className
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  made.append(...children.filter((child) => child !== undefined && child !== ''))
  return made
}

function shape(name, attributes) {
  const made = document.createElementNS(svgNamespace, name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  return made
}

/** Others' text, which does not change the direction of what stands beside it. A long name may be broken after its parts. */
function named(value) {
  const parts = plain(value).split(/(?<=[/:@])/u)
  return element('bdi', {}, ...parts.flatMap((part, i) => (i === 0 ? [part] : [element('wbr'), part])))
}

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

function size(bytes) {
  let value = bytes
  let unit = 0
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  const digits = unit === 0 || value >= 99.5 ? 0 : 1
  return `${value.toFixed(digits)} ${units[unit]}`
}

const rate = (bytesPerSecond) => `${size(bytesPerSecond)}/s`

function duration(seconds) {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`
  if (seconds < 60) return `${Math.round(seconds)} s`
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min`
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)} h ${Math.floor((seconds % 3_600) / 60)} min`
  return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3_600)} h`
}

/** A share from 0 to 1; only all of it is 100 %. */
const percent = (share) => `${share >= 1 ? 100 : Math.min(99, Math.floor(share * 100))} %`

const shareOf = (part, whole) => (whole === 0 ? 1 : part / whole)

/** "3 hosts", "1 host". */
const count = (number, one, many = `${one}s`) => `${number.toLocaleString('en')} ${number === 1 ? one : many}`

function bar(share) {
  const fill = element('i', { className: share >= 1 ? 'whole' : '' })
  fill.style.width = `${Math.min(100, share * 100)}%`
  return element('span', { className: 'bar', 'aria-hidden': 'true' }, fill)
}

const tag = (text, kind = '') => element('span', { className: `tag ${kind}` }, text)

/** A table of `columns` (title, class) and rows of cells; each cell is an element or a text. */
function table(labelledBy, columns, rows) {
  const head = element(
    'tr',
    {},
    ...columns.map(([title, className = '']) => element('th', { scope: 'col', className }, title)),
  )
  const lines = rows.map((cells) =>
    element(
      'tr',
      {},
      ...cells.map((cell, place) => element('td', { className: columns[place][1] ?? '' }, ...[cell].flat())),
    ),
  )
  return element('table', { 'aria-labelledby': labelledBy }, element('thead', {}, head), element('tbody', {}, ...lines))
}

/** The first cell of a row: a name, tags, what is said of it, and what a narrow screen has no column for. */
function nameCell(name, { tags = [], second = [], narrow = [] } = {}) {
  const line = (className, parts) =>
    parts.length === 0
      ? ''
      : element('span', { className }, ...parts.flatMap((part, i) => (i === 0 ? [part] : [' · ', part])))
  return [named(name), ...tags.flatMap((one) => [' ', one]), line('second', second), line('second narrow', narrow)]
}

const last = new Map()

/**
 * Puts content into a section where what it shows has changed: a text that is being selected stays.
 * @param rows how many of `total` are shown
 */
function show(id, data, make, { rows, total }) {
  const key = JSON.stringify([data, total])
  if (last.get(id) === key) return
  last.set(id, key)
  const section = byId(id)
  const heading = section.querySelector('h2')
  heading.querySelector('.count')?.remove()
  if (total > 0) heading.append(element('span', { className: 'count' }, total.toLocaleString('en')))
  const content = [make(data)].flat()
  if (total > rows)
    content.push(
      element(
        'p',
        { className: 'more' },
        `${(total - rows).toLocaleString('en')} more ${total - rows === 1 ? 'is' : 'are'} not shown.`,
      ),
    )
  section.querySelector('.body').replaceChildren(...content)
}

const none = (text) => element('p', { className: 'none' }, text)

function figures({ counts, totals, waiting, disk }) {
  const fetched = Object.values(totals.fetched).reduce((sum, bytes) => sum + bytes, 0)
  const small = (text) => element('small', {}, text)
  const entries = [
    ['Hosts connected', [counts.hosts.toLocaleString('en'), small(` of ${counts.members.toLocaleString('en')}`)]],
    ['Mounts', [counts.mounts.toLocaleString('en')]],
    ['Reads waiting', [waiting.count.toLocaleString('en')], waiting.slow > 0 ? 'bad' : ''],
    ['I/O errors', [counts.readErrors.toLocaleString('en')], counts.readErrors > 0 ? 'bad' : ''],
    [
      'Fetched from peers',
      fetched === 0 ? ['–'] : [percent(totals.fetched.peer / fetched), small(` of ${size(fetched)}`)],
    ],
    ['Sent to peers', [size(totals.sent)]],
    [
      'Disk free',
      [size(disk.freeBytes), small(` of ${size(disk.sizeBytes)}`)],
      disk.freeBytes < disk.sizeBytes * 0.05 ? 'bad' : '',
    ],
  ]
  byId('figures').replaceChildren(
    ...entries.map(([what, value, className = '']) =>
      element('div', {}, element('dt', {}, what), element('dd', { className }, ...[value].flat())),
    ),
  )
}

const readsList = (names) => names.flatMap((name, i) => (i === 0 ? [named(name)] : [', ', named(name)]))

function waitingTable({ longest }) {
  return table(
    'waiting-title',
    [
      ['Image', 'name'],
      ['Waits for', 'wide'],
      ['Waited', 'num'],
      ['Fails in', 'num'],
    ],
    longest.map(({ image, asked, refusals, waitedSeconds, failsInSeconds }) => {
      const whom = asked.length === 0 ? ['nobody is asked now'] : readsList(asked)
      const refused =
        refusals.length === 0 ? [] : [element('span', { className: 'muted' }, ' (', ...readsList(refusals), ')')]
      const narrow = element('span', {}, 'waits for ', ...(asked.length === 0 ? ['nobody now'] : readsList(asked)))
      return [
        nameCell(image, { narrow: [narrow] }),
        [...whom, ...refused],
        duration(waitedSeconds),
        duration(failsInSeconds),
      ]
    }),
  )
}

const warnings = {
  contradicted: ['not the image', 'bad'],
  'whole-layers': ['reads whole layers', 'warn'],
  'peers-lost': ['no peers', 'warn'],
}

function mountTable(mounts) {
  if (mounts.length === 0) return none('Nothing is mounted on this host.')
  return table(
    'mounts-title',
    [
      ['Directory', 'name'],
      ['Kind', 'wide'],
      ['From', 'wide num'],
      ['Here', 'num'],
    ],
    mounts.map((mount) => {
      const kind = `${mount.format} ${mount.as}${mount.writable ? ', writable' : ''}`
      const fetched = Object.entries(mount.fetched)
        .filter(([, bytes]) => bytes > 0)
        .map(([source, bytes]) => `${sourceNames[source]} ${size(bytes)}`)
      const share = shareOf(mount.localBytes, mount.sizeBytes)
      const reads = mount.reads === 'native' ? 'read by the kernel alone' : ''
      return [
        nameCell(mount.directory, {
          tags: mount.warnings.map((warning) => tag(...(warnings[warning] ?? [plain(warning), 'warn']))),
          second: [named(mount.reference)],
          narrow: [kind, ...fetched],
        }),
        [plain(kind), reads === '' ? '' : element('div', { className: 'muted' }, reads)],
        fetched.length === 0
          ? element('span', { className: 'muted' }, 'was here')
          : fetched.map((text) => element('div', {}, text)),
        [`${percent(share)} of ${size(mount.sizeBytes)}`, bar(share)],
      ]
    }),
  )
}

/** "whole on 4 hosts, in part on 6" */
function spread({ wholeOn, partlyOn }) {
  const whole = wholeOn > 0 ? [`whole on ${count(wholeOn, 'host')}`] : []
  const part = partlyOn > 0 ? [`in part on\u00a0${wholeOn > 0 ? partlyOn : count(partlyOn, 'host')}`] : []
  return [...whole, ...part].join(', ')
}

function where(image) {
  const { hosts, wholeOn, partlyOn } = image
  if (hosts.length === 0) return element('span', { className: 'muted' }, 'no other host')
  const rest = wholeOn + partlyOn - hosts.length
  return [
    spread(image),
    element(
      'div',
      { className: 'where' },
      ...hosts.map(({ name, share }) => element('span', {}, named(name), ' ', element('b', {}, percent(share)))),
      rest > 0 ? element('span', {}, `and ${rest} more`) : '',
    ),
  ]
}

function imageTable(images) {
  if (images.length === 0) return none('This host knows no image yet.')
  return table(
    'images-title',
    [
      ['Image', 'name'],
      ['On other hosts', 'wide'],
      ['Here', 'num'],
    ],
    images.map((image) => {
      const share = shareOf(image.localBytes, image.sizeBytes)
      return [
        nameCell(image.reference, {
          tags: [...(image.isMounted ? [tag('mounted')] : []), ...(image.isPinned ? [tag('pinned')] : [])],
          second: [plain(`${image.platform}, ${image.format}`)],
          narrow: [image.hosts.length === 0 ? 'on no other host' : spread(image)],
        }),
        where(image),
        [`${percent(share)} of ${size(image.sizeBytes)}`, bar(share)],
      ]
    }),
  )
}

const seedStates = { scheduled: 'scheduled', placing: 'placing', placed: 'placed' }

function seedTable({ seeds, imports }) {
  const rows = [
    ...imports.map(({ reference, doneBytes, totalBytes, forPeers }) => [
      nameCell(reference, { second: ['import', ...(forPeers > 0 ? [`${count(forPeers, 'peer')} wait for it`] : [])] }),
      element('span', { className: 'muted' }, 'this host'),
      [`${size(doneBytes)} of ${size(totalBytes)}`, bar(totalBytes === 0 ? 0 : doneBytes / totalBytes)],
    ]),
    ...(seeds ?? []).map((seed) => {
      const wanted = seed.copies === 'all' ? 'all hosts' : count(seed.copies, 'copy', 'copies')
      const done =
        seed.state === 'placed'
          ? 1
          : seed.copies === 'all'
            ? 0
            : Math.min(1, seed.verifiedCopies / Math.max(1, seed.copies))
      const hosts = seed.hosts.map(({ name, state, share, code }) =>
        element(
          'span',
          { className: state === 'failed' ? 'bad' : '' },
          named(name),
          ` ${state === 'failed' ? plain(code ?? 'failed') : state === 'gone' ? 'gone' : percent(share)}`,
        ),
      )
      return [
        nameCell(seed.reference, {
          tags: [tag(seedStates[seed.state] ?? plain(seed.state), seed.state === 'placing' ? 'warn' : '')],
          second: [
            seed.isByDemand ? 'mounted often' : 'ordered',
            `until ${new Date(seed.endsAt).toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'short' })}`,
          ],
        }),
        element('span', { className: 'where' }, ...hosts),
        [`${seed.verifiedCopies} of ${wanted}`, bar(done)],
      ]
    }),
  ]
  if (rows.length === 0)
    return none(seeds === undefined ? 'Members are being asked…' : 'No seed or import is under way.')
  return table(
    'seeds-title',
    [
      ['Image', 'name'],
      ['On', 'wide'],
      ['Done', 'num'],
    ],
    rows,
  )
}

const links = { refused: 'no bulk: refused', unreachable: 'no bulk: port not reached' }

function hostTable(hosts) {
  if (hosts.length === 0) return none('No other host of the region is connected.')
  return table(
    'hosts-title',
    [
      ['Host', 'name'],
      ['Connected', 'wide num'],
      ['Received', 'num'],
      ['Sent', 'num'],
    ],
    hosts.map((host) => [
      nameCell(host.name, {
        tags: links[host.bulk] === undefined ? [] : [tag(links[host.bulk], 'warn')],
        second: [element('span', { className: 'wide' }, plain(host.peer))],
        narrow: [`connected for ${duration(host.connectedSeconds)}`],
      }),
      duration(host.connectedSeconds),
      size(host.receivedBytes),
      size(host.sentBytes),
    ]),
  )
}

/** Steps that a chart has room for: as many as the daemon keeps. */
const chartSteps = 240

/**
 * A chart of stacked areas, and one line, over the last steps.
 * @param stacked `[name, title, values]`, from the bottom up
 * @param line the same, not stacked
 */
function chart(id, title, { stacked, line, stepSeconds }) {
  const all = line === undefined ? stacked : [...stacked, line]
  const length = all[0][2].length
  const sums = Array.from({ length }, (_, i) => stacked.reduce((sum, [, , values]) => sum + values[i], 0))
  const top = Math.max(1, ...sums, ...(line?.[2] ?? []))
  const height = 100
  const x = (i) => chartSteps - length + i + 0.5
  const y = (value) => height - (value / top) * (height - 8)
  const svg = shape('svg', { viewBox: `0 0 ${chartSteps} ${height}`, preserveAspectRatio: 'none', role: 'img' })
  svg.setAttribute(
    'aria-label',
    `${title}, the last ${duration(chartSteps * stepSeconds)}; ${all.map(([, name, values]) => `${name} ${rate(values.at(-1) ?? 0)} now`).join(', ')}`,
  )
  svg.append(shape('line', { class: 'grid', x1: 0, x2: chartSteps, y1: y(top), y2: y(top) }))
  let base = Array.from({ length }, () => 0)
  for (const [name, , values] of stacked) {
    const upper = base.map((bottom, i) => bottom + values[i])
    if (values.some((value) => value > 0)) {
      const there = upper.map((value, i) => `${x(i)},${y(value)}`)
      const back = base.map((value, i) => `${x(i)},${y(value)}`).toReversed()
      svg.append(shape('polygon', { class: `c-${name}`, points: [...there, ...back].join(' ') }))
    }
    base = upper
  }
  if (line !== undefined && line[2].some((value) => value > 0))
    svg.append(
      shape('polyline', {
        class: `outline c-${line[0]}`,
        points: line[2].map((value, i) => `${x(i)},${y(value)}`).join(' '),
      }),
    )
  const cursor = shape('line', { class: 'cursor', y1: 0, y2: height, visibility: 'hidden' })
  svg.append(cursor)

  const idle = top === 1
  const values = all.map(() => element('b'))
  const legend = element(
    'ul',
    { className: 'legend' },
    ...all
      .map(([name, series], place) =>
        element(
          'li',
          {},
          element('span', { className: `swatch c-${name} ${name === line?.[0] ? 'line' : ''}` }),
          series,
          values[place],
        ),
      )
      .toReversed(),
  )
  const readOut = (i) => {
    for (const [place, [, , series]] of all.entries()) values[place].textContent = rate(series[i] ?? 0)
  }
  readOut(length - 1)
  const start = element('span', {}, `${duration(chartSteps * stepSeconds)} ago`)
  const plot = element(
    'div',
    { className: 'plot' },
    svg,
    element('span', { className: 'top' }, idle ? 'nothing yet' : rate(top)),
  )
  svg.addEventListener('pointermove', ({ offsetX }) => {
    const i = Math.round((offsetX / svg.clientWidth) * chartSteps - 0.5) - (chartSteps - length)
    if (i < 0 || i >= length) return
    cursor.setAttribute('x1', x(i))
    cursor.setAttribute('x2', x(i))
    cursor.setAttribute('visibility', 'visible')
    start.textContent = `${duration((length - 1 - i) * stepSeconds)} ago`
    readOut(i)
  })
  svg.addEventListener('pointerleave', () => {
    cursor.setAttribute('visibility', 'hidden')
    start.textContent = `${duration(chartSteps * stepSeconds)} ago`
    readOut(length - 1)
  })
  const key = JSON.stringify(all)
  // A chart that somebody points at is not drawn anew.
  if (last.get(id) === key || byId(id).querySelector('svg:hover') !== null) return
  last.set(id, key)
  byId(id).replaceChildren(plot, element('div', { className: 'axis' }, start, element('span', {}, 'now')), legend)
}

function charts({ stepSeconds, read, fetched, sent }) {
  const series = (of) =>
    sources.filter((source) => of[source] !== undefined).map((source) => [source, sourceNames[source], of[source]])
  chart('read-chart', 'Read by mounts', { stacked: series(read), stepSeconds })
  chart('fetched-chart', 'Fetched and sent', {
    stacked: series(fetched),
    line: ['sent', 'sent to peers', sent],
    stepSeconds,
  })
}

function update(view) {
  const { host, counts, waiting } = view
  document.title = `${plain(host.name)} · p2pfs`
  byId('region').textContent = plain(host.region)
  byId('host').replaceChildren(
    'seen from ',
    named(host.name),
    ` · p2pfs ${plain(host.version)} · up ${duration(host.uptimeSeconds)}`,
  )
  const state = byId('state')
  state.className = host.notReady === undefined ? 'ready' : 'away'
  const said = host.notReady === undefined ? 'ready' : plain(host.notReady)
  if (state.textContent !== said) state.textContent = said
  figures(view)
  byId('waiting').hidden = waiting.longest.length === 0
  byId('waiting').classList.toggle('slow', waiting.slow > 0)
  show('waiting', waiting, waitingTable, { rows: waiting.longest.length, total: waiting.count })
  charts(view.history)
  show('mounts', view.mounts, mountTable, { rows: view.mounts.length, total: counts.mounts })
  show('images', view.images, imageTable, { rows: view.images.length, total: counts.images })
  const { seeds, imports } = view
  show('seeds', { seeds, imports }, seedTable, {
    rows: (seeds?.length ?? 0) + imports.length,
    total: counts.seeds + imports.length,
  })
  show('hosts', view.hosts, hostTable, { rows: view.hosts.length, total: counts.hosts })
  byId('foot').textContent = `Peer ${plain(host.peer)} · ${count(counts.chunks, 'chunk')} in the store`
}

let answeredAt = ''

async function poll() {
  try {
    const response = await fetch('/status.json', { signal: AbortSignal.timeout(answerMs), cache: 'no-store' })
    if (!response.ok) throw new Error(`status ${response.status}`)
    const view = await response.json()
    answeredAt = new Date().toLocaleTimeString('en-GB')
    document.body.classList.remove('stale')
    update(view)
  } catch (error) {
    console.error(error)
    document.body.classList.add('stale')
    byId('state').className = 'away'
    const said = answeredAt === '' ? 'no answer; trying again' : `no answer since ${answeredAt}; trying again`
    if (byId('state').textContent !== said) byId('state').textContent = said
  }
}

/** While nobody looks, nobody is asked. */
async function run() {
  for (;;) {
    if (document.hidden)
      await new Promise((resolve) => document.addEventListener('visibilitychange', resolve, { once: true }))
    await poll()
    await new Promise((resolve) => setTimeout(resolve, pollMs))
  }
}

await run()
