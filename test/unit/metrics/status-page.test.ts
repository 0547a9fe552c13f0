import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { chromium, type Browser, type Page } from 'playwright-core'
import { silentLog } from '../../../node/base/log.ts'
import { MetricsListener } from '../../../node/metrics/listener.ts'
import { StatusPage } from '../../../node/metrics/status-page.ts'
import { regionView, type RegionOptions } from './page-fakes.ts'

const program = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((path) =>
  existsSync(path),
)
const { signal } = new AbortController()
/** Markup, an attribute's end, a turn of the direction of writing, control characters, a very long word. */
const hostile = (text: string): string =>
  `"><img src=x onerror="document.title='pwned'"><script>document.title='pwned'</script>\u202e\u0007\u2028${text}&lt;b&gt;${'w'.repeat(400)}`

/** In the page: adds a script element. */
const addScript = `{
  const script = document.createElement('script')
  try {
    script.textContent = "document.title = 'pwned'"
  } catch {
    // Trusted Types refuse the assignment itself.
  }
  document.body.append(script)
}`
/** In the page: the least contrast of a text with what it stands on, as WCAG 2.2 has it. */
const leastContrast = `{
  const channel = (value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
  const luminance = (colour) => {
    const [r, g, b] = colour.match(/\\d+/g).map((part) => channel(Number(part) / 255))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const paper = luminance(getComputedStyle(document.body).backgroundColor)
  const texts = [...document.querySelectorAll('h1, h2, p, th, td, dt, dd, small, .second, .tag, .where span')]
  Math.min(...texts.map((node) => {
    const ink = luminance(getComputedStyle(node).color)
    return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)
  }))
}`
/** In the page: how many tables, sections and charts lack a name, or a table its headings. */
const unnamed = `{
  const isNamed = (node) => document.getElementById(node.getAttribute('aria-labelledby') ?? '') !== null
  const all = (selector) => [...document.querySelectorAll(selector)]
  all('table, section').filter((node) => !isNamed(node)).length +
    all('table').filter((node) => node.querySelector('th[scope=col]') === null).length +
    all('svg').filter((node) => node.getAttribute('role') !== 'img' || !node.hasAttribute('aria-label')).length
}`

/** In the page: figures that would cover what is beside them, with a long value in each. */
const wideFigures = `{
  const values = [...document.querySelectorAll('.figures dd')]
  for (const value of values) value.firstChild.textContent = '1023 GiB, 1023 GiB'
  values.filter((value) => value.scrollWidth > value.clientWidth).map((value) => value.textContent).join()
}`

interface Shown {
  page: Page
  listener: MetricsListener
  /** Complaints of the browser: errors, and requests that the page's policy forbade. */
  complaints: string[]
}

describe('the status page', { skip: program === undefined ? 'no chromium (Debian: chromium)' : false }, () => {
  let browser: Browser
  before(async () => {
    // In a container its own sandbox needs namespaces that may be forbidden; it opens only what the test serves.
    browser = await chromium.launch({ executablePath: program!, args: ['--no-sandbox'] })
  })
  after(async () => await browser.close())

  async function show(
    options: RegionOptions = {},
    { width = 1280, colorScheme = 'light' }: { width?: number; colorScheme?: 'light' | 'dark' } = {},
  ): Promise<Shown & AsyncDisposable> {
    const answers = [new StatusPage({ view: regionView(options) }, { signal })]
    const listener = new MetricsListener({ answers, log: silentLog }, { host: '127.0.0.1', port: 0 })
    await listener.start()
    const context = await browser.newContext({ viewport: { width, height: 800 }, colorScheme })
    const page = await context.newPage()
    const complaints: string[] = []
    page.on('console', (message) => void complaints.push(message.text()))
    page.on('pageerror', (error) => void complaints.push(error.message))
    await page.goto(`http://127.0.0.1:${listener.port}/`)
    await page.waitForSelector('#state.ready')
    const dispose = async (): Promise<void> => {
      await context.close()
      await listener[Symbol.asyncDispose]()
    }
    return { page, listener, complaints, [Symbol.asyncDispose]: dispose }
  }

  const text = async (page: Page, selector: string): Promise<string> => await page.locator(selector).innerText()

  test('shows region, hosts, images, mounts, seeds and the reads that wait', async () => {
    await using shown = await show()
    const { page, complaints } = shown
    assert.equal(await text(page, '#region'), 'eu-west')
    assert.match(await text(page, '#figures'), /Hosts connected\s+6 of 211/)
    assert.match(
      await text(page, '#waiting'),
      /ghcr\.io\/acme\/billing-api:2026-11-26.*eu-west-1b-host-04, the registry \(eu-west-1b-host-05: busy\)\s+12 s\s+48 s/s,
    )
    assert.match(await text(page, '#mounts'), /\/run\/vms\/81c1\/root reads whole layers/)
    assert.match(await text(page, '#images'), /whole on 4 hosts, in part on\s6/)
    assert.match(await text(page, '#hosts'), /eu-west-1b-host-04 no bulk: port not reached/)
    await page.waitForFunction(`document.querySelector('#seeds')?.textContent?.includes('1 of 3 copies') === true`)
    assert.match(
      (await page.locator('#read-chart svg').getAttribute('aria-label')) ?? '',
      /^Read by mounts, the last 20 min; /,
    )
    assert.ok((await page.locator('#read-chart polygon').count()) >= 3)
    assert.deepEqual(complaints, [])
  })

  test('a host that has nothing says so', async () => {
    await using shown = await show({ isQuiet: true })
    const { page, complaints } = shown
    assert.match(await text(page, '#mounts'), /Nothing is mounted on this host\./)
    assert.match(await text(page, '#hosts'), /No other host of the region is connected\./)
    assert.equal(await page.locator('#waiting').isVisible(), false)
    assert.deepEqual(complaints, [])
  })

  for (const width of [360, 1280]) {
    test(`others’ names are text, whatever is in them, and break no layout (${width} px)`, async () => {
      await using shown = await show({ text: hostile }, { width })
      const { page, complaints } = shown
      await page.waitForFunction(`document.querySelector('#seeds')?.textContent?.includes('copies') === true`)
      assert.equal(await page.locator('img, script:not([src="/page.js"]), iframe, [onerror]').count(), 0)
      assert.doesNotMatch(await page.title(), /^pwned/)
      const body = await page.locator('body').innerText()
      assert.match(body, /"><img src=x onerror=/)
      assert.doesNotMatch(body, /[\p{Cf}\p{Zl}]|(?![\n\t])\p{Cc}/u)
      assert.doesNotMatch(body, /w{200}/)
      const scroll = await page.evaluate<number>('document.documentElement.scrollWidth')
      assert.ok(scroll <= width, `${scroll} px wide`)
      assert.equal(await page.evaluate(wideFigures), '', 'figures that are wider than their place')
      assert.deepEqual(complaints, [])
    })
  }

  test('the policy of the page keeps a script that got in from running', async () => {
    await using shown = await show()
    const { page, complaints } = shown
    await page.evaluate(addScript)
    await assert.rejects(page.evaluate(`document.body.innerHTML = '<img src=x onerror="document.title=1">'`))
    assert.doesNotMatch(await page.title(), /pwned|^1$/)
    assert.ok(complaints.some((complaint) => /Trusted|Content Security Policy/.test(complaint)))
  })

  test('light and dark differ, and text stands out in both', async () => {
    const colours: string[] = []
    for (const colorScheme of ['light', 'dark'] as const) {
      await using shown = await show({}, { width: 360, colorScheme })
      const { page } = shown
      const worst = await page.evaluate<number>(leastContrast)
      // WCAG 2.2, AA.
      assert.ok(worst >= 4.5, `${colorScheme}: contrast of ${worst.toFixed(2)}`)
      colours.push(await page.evaluate<string>('getComputedStyle(document.body).backgroundColor'))
    }
    assert.notEqual(colours[0], colours[1])
  })

  test('every table has a name and headings, and every section a title', async () => {
    await using shown = await show()
    const { page } = shown
    const faults = await page.evaluate<number>(unnamed)
    assert.equal(faults, 0)
    assert.equal(await page.locator('h1').count(), 1)
  })

  test('a daemon that does not answer is said to be away, and shown again when it does', async () => {
    await using shown = await show()
    const { page, listener } = shown
    await page.route('**/status.json', async (route) => await route.abort())
    await page.waitForSelector('#state.away')
    assert.match(await text(page, '#state'), /^no answer since \d\d:\d\d:\d\d; trying again$/)
    assert.equal(await page.locator('body.stale').count(), 1)
    await page.unroute('**/status.json')
    await page.waitForSelector('#state.ready')
    assert.equal(await page.locator('body.stale').count(), 0)
    assert.ok(listener.port !== undefined)
  })
})
