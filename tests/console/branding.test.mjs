// The name, the colour and the logo of an organisation, on the console and on the pages of visitors.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { BRANDED, closeBrowser, Person } from './browser.mjs';
import { examine, SHARP } from './look.mjs';

after(closeBrowser);

/** Whether the picture has been drawn: a Content-Security-Policy may forbid it. */
const isShown = (image) => image.evaluate((element) => element.complete && element.naturalWidth > 0);

for (const { name, accent, isReadable, admin, public: visitors } of BRANDED) {
  test(`the pages of an organisation with ${accent} are theirs`, async () => {
    const problems = [];
    const suffix = accent.slice(1);
    const person = await Person.at(admin, SHARP);
    const { page } = person;
    const look = async (what) => {
      const brand = page.getByRole('banner').getByRole('link').first();
      assert.equal((await brand.innerText()).trim(), name);
      assert.ok(await isShown(brand.locator('img')), `${what}: no logo`);
      assert.ok((await page.title()).endsWith(name), await page.title());
      await examine(page, `branded-${suffix}-${what}`, problems);
    };
    await person.open('sign-in');
    await look('sign-in');
    await person.signIn('jane', true);
    await look('my-links');
    await person.choose('Make your first link');
    await page.getByLabel('Destination').fill('https://www.example.com/');
    await person.press('Create');
    await look('link');
    // Where it can be read, the accent is that of the settings to the shade.
    if (isReadable) {
      await page.emulateMedia({ colorScheme: 'light' });
      const color = await page.getByRole('button', { name: 'Copy', exact: true }).evaluate((element) => getComputedStyle(element).backgroundColor);
      const parts = accent.match(/[0-9a-f]{2}/g).map((part) => parseInt(part, 16));
      assert.equal(color, `rgb(${parts.join(', ')})`);
    }
    await person.open('all');
    await look('all-links');
    await person.open('clicks');
    await look('clicks');
    await person.leave();

    for (const locale of ['en-US', 'he-IL']) {
      const visitor = await Person.at(visitors, { ...SHARP, locale });
      visitor.expectStatus(404);
      await visitor.page.goto(`${visitors}/tiny/unknown1`);
      await visitor.sees(name);
      assert.ok(await isShown(visitor.page.locator('img')), 'no logo for visitors');
      assert.equal(await visitor.page.evaluate(() => getComputedStyle(document.body).direction), locale === 'he-IL' ? 'rtl' : 'ltr');
      await examine(visitor.page, `branded-${suffix}-visitor-${locale}`, problems);
      await visitor.leave();
    }
    assert.deepEqual(problems, []);
  });
}
