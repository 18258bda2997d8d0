/** A step did not come to what it should. */
export class DemoError extends Error {
  override readonly name = 'DemoError';
  readonly hint: string;

  constructor(message: string, hint: string) {
    super(message);
    this.hint = hint;
  }
}
