// A file in a message. Its bytes are fetched only on request, with the reader's own right to them.
import { useState } from 'react';
import type { FileRef } from '../core/api/types';
import type { Thread } from '../core/chat/thread';
import { fileSize } from '../core/files/upload';
import { Icon } from '../ui/Icon';
import { Spinner } from '../ui/parts';
import { useLanguage, useT } from '../ui/store';

export function FileCard({ file, thread }: { file: FileRef; thread: Thread }) {
  const t = useT();
  const language = useLanguage();
  const [state, setState] = useState<'idle' | 'busy' | 'failed'>('idle');
  const open = async () => {
    setState('busy');
    try {
      await thread.saveFile(file);
      setState('idle');
    } catch {
      setState('failed');
    }
  };
  const refused = file.state === 'harmful' || file.state === 'waiting';
  const meta = file.state === 'harmful' ? t('chat.file_harmful')
    : file.state === 'waiting' ? t('chat.file_checking')
    : state === 'failed' ? t('chat.download_failed') : fileSize(file.size, language);
  return (
    <button type="button" className="file-card" onClick={() => void open()} data-testid="file" data-state={file.state} disabled={state === 'busy' || refused}>
      <span className="file-icon">{state === 'busy' ? <Spinner /> : <Icon name="file" />}</span>
      <span className="upload-text">
        <span className="file-name">{file.name}</span>
        <span className="file-meta" role={refused ? 'status' : undefined}>{meta}{refused ? null : <span className="sr-only"> {t('chat.download')}</span>}</span>
      </span>
    </button>
  );
}
