/**
 * Starts the command line. JavaScript, and nothing but this: what is loaded from here on is kept as V8 compiled it, types
 * stripped, which saves every command a third of a second; what is loaded before has to be compiled each time.
 */
import { enableCompileCache } from 'node:module';
import { userInfo } from 'node:os';
import { join } from 'node:path';

try {
  // Not Node's folder below /tmp, where somebody else may have put something for us; nor that of $HOME, which may be another user's.
  enableCompileCache(join(userInfo().homedir, '.cache/buildos/compiled'));
} catch {
  // Nobody has this uid: there is no home.
}
await import('./main.ts');
