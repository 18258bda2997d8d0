import assert from 'node:assert/strict';
import { test } from 'node:test';
import { escapeHtml, formatPage } from './page.ts';

test('what agents and people send is text on the page, never markup', () => {
  const page = formatPage([
    {
      id: '1',
      name: '<script>alert(1)</script>',
      version: '"><img src=x>',
      machine: "a'b&c",
      state: 'done',
      status: 'error',
      attempts: 1,
      submitted: '2026-01-01T00:00:00.000Z',
    },
  ]);
  assert.ok(page.includes('&lt;script&gt;alert(1)&lt;/script&gt; &quot;&gt;&lt;img src=x&gt;'));
  assert.ok(page.includes('a&#39;b&amp;c'));
  assert.ok(!/<script|<img/.test(page));
  assert.ok(page.includes('<a href="/?log=1">logs</a>'));
});

test('an empty list says so', () => {
  assert.ok(formatPage([]).includes('No task was submitted yet.'));
});

test('escapeHtml() leaves other characters alone', () => {
  assert.equal(escapeHtml('ä 😀 \\ /'), 'ä 😀 \\ /');
});
