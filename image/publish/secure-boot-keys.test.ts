/** Key and certificate of Secure Boot: each way in which they are wrong has its own message. Pairs are made by openssl(1). */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { checkSigning, SigningError, type SigningFiles } from './secure-boot-keys.ts';

let folder: string;
const at = (name: string): string => join(folder, name);

function pair(name: string, type: readonly string[], days = '30'): void {
  const words = ['req', '-new', '-x509', '-newkey', ...type, '-nodes', '-days', days, '-subj', `/CN=${name}/`];
  execFileSync('openssl', [...words, '-keyout', at(`${name}.key`), '-out', at(`${name}.crt`)], { stdio: 'ignore' });
}

before(() => {
  folder = mkdtempSync(join(tmpdir(), 'buildos-signing-'));
  pair('one', ['rsa:2048']);
  pair('two', ['rsa:2048']);
  pair('short', ['rsa:1024']);
  pair('curve', ['ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1']);
  const encrypt = ['pkey', '-in', at('one.key'), '-aes256', '-passout', 'pass:secret', '-out', at('locked.key')];
  execFileSync('openssl', encrypt);
  execFileSync('openssl', ['x509', '-in', at('one.crt'), '-outform', 'DER', '-out', at('one.cer')]);
  const cut = (from: string, to: string): void => writeFileSync(at(to), readFileSync(at(from), 'utf8').slice(0, 300));
  cut('one.key', 'cut.key');
  cut('one.crt', 'cut.crt');
});

after(() => rmSync(folder, { recursive: true, force: true }));

async function refused(files: SigningFiles, message: RegExp, hint: RegExp): Promise<void> {
  await assert.rejects(checkSigning(files), (error) => {
    assert.ok(error instanceof SigningError);
    assert.match(error.message, message);
    assert.match(error.hint, hint);
    return true;
  });
}

test('a pair that fits is taken; of an expired certificate there is a warning', async () => {
  const files = { key: at('one.key'), certificate: at('one.crt') };
  assert.deepEqual(await checkSigning(files), []);
  assert.deepEqual(await checkSigning({}), []);
  const later = await checkSigning(files, new Date(Date.now() + 40 * 86_400_000));
  assert.match(
    later.join(),
    /^warning: the certificate .*one\.crt expired on 20\d\d-\d\d-\d\d; firmware does not look/,
  );
  assert.match((await checkSigning(files, new Date(0))).join(), /valid from 20.*only; is the clock/);
});

test('each way in which the files are wrong is named', async () => {
  const [key, certificate] = [at('one.key'), at('one.crt')];
  await refused({ key }, /key and certificate go together/, /--secure-boot-certificate/);
  await refused({ certificate }, /key and certificate go together/, /--secure-boot-key/);
  await refused(
    { key: at('two.key'), certificate },
    /two\.key is not that of the certificate .*one\.crt \(CN=one\)/,
    /made together/,
  );
  await refused({ key: at('no.key'), certificate }, /cannot read the key .*no\.key/, /path/);
  await refused({ key, certificate: at('no.crt') }, /cannot read the certificate .*no\.crt/, /path/);
  await refused({ key: at('locked.key'), certificate }, /locked\.key: it is encrypted/, /openssl pkey -in/);
  await refused({ key: certificate, certificate: key }, /one\.crt: it is a certificate/, /swapped/);
  await refused({ key, certificate: key }, /one\.key: it is a private key/, /swapped/);
  await refused({ key, certificate: at('one.cer') }, /one\.cer: it is no certificate in PEM form/, /-inform DER/);
  await refused({ key: at('cut.key'), certificate }, /cut\.key: it is damaged/, /how to make/);
  await refused({ key, certificate: at('cut.crt') }, /cut\.crt: it is damaged/, /how to make/);
  await refused({ key: at('one.cer'), certificate }, /one\.cer: it is no private key in PEM form/, /how to make/);
  await refused(
    { key: at('short.key'), certificate: at('short.crt') },
    /1024 bits, firmware wants 2048/,
    /how to make/,
  );
  await refused({ key: at('curve.key'), certificate: at('curve.crt') }, /type ec, firmware wants RSA/, /how to make/);
});
