import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatProblem, parseKernelCommandLine } from '../host/kernel-cmdline.ts';
import { findUnsigned, signatureUrl } from './signed.ts';

test('a signature is beside its text, whatever comes after the name in the URL', () => {
  for (const [url, beside] of [
    ['http://host/a/list', 'http://host/a/list.minisig'],
    ['https://host:8443/a%20b/list?token=x', 'https://host:8443/a%20b/list.minisig?token=x'],
    ['tftp://host/a/list', 'tftp://host/a/list.minisig'],
    ['tftp://[fd00::1]:6969/list;mode=octet', 'tftp://[fd00::1]:6969/list.minisig;mode=octet'],
  ] as const) {
    assert.equal(signatureUrl(url), beside);
  }
});

test('one warning names every key that is missing, and none where nothing is fetched', () => {
  const warnings = (line: string): string[] => findUnsigned(parseKernelCommandLine(line).options).map(formatProblem);
  const key = 'RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3';
  assert.deepEqual(warnings('buildos.hostname=a buildos.instances=2'), []);
  assert.deepEqual(
    warnings('buildos.buildid_url=http://b buildos.toolchain_url=http://t buildos.toolchain_url.two=http://t2'),
    [
      'buildos.buildid_trust, buildos.toolchain_trust, buildos.toolchain_trust.two: not given, so this host follows' +
        ' whatever is published, whoever has put it there (publish with --sign, and give hosts the public key)',
    ],
  );
  assert.match(
    warnings(`buildos.buildid_url=http://b buildos.buildid_trust=${key} buildos.toolchain_url.two=http://t2`).join(
      '\n',
    ),
    /^buildos\.toolchain_trust\.two: not given/,
  );
  assert.deepEqual(warnings(`buildos.toolchain_url=http://t buildos.toolchain_trust=${key}`), []);
  assert.deepEqual(
    warnings('buildos.toolchain_url=http://t buildos.toolchain_trust=mistyped'),
    [],
    'said as a bad key',
  );
});
