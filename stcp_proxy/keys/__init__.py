"""Keys of a host: their text, and the files that hold the secret ones.

- ``text``         key text: ``stcp-pub:``, ``stcp-key:`` and ``stcp-psk:``
- ``key_file``     files with one line of key text
- ``secret_file``  read files that only their owner can read
- ``new_file``     write new files, secret ones among them, and new folders
"""

from stcp_proxy.keys.key_file import load_private_key as load_private_key
from stcp_proxy.keys.key_file import load_psk as load_psk
from stcp_proxy.keys.key_file import only_line as only_line
from stcp_proxy.keys.new_file import replace_file as replace_file
from stcp_proxy.keys.new_file import write_folder as write_folder
from stcp_proxy.keys.new_file import write_secret_file as write_secret_file
from stcp_proxy.keys.secret_file import check_file_name as check_file_name
from stcp_proxy.keys.secret_file import read_secret_file as read_secret_file
from stcp_proxy.keys.text import PRIVATE_PREFIX as PRIVATE_PREFIX
from stcp_proxy.keys.text import PSK_PREFIX as PSK_PREFIX
from stcp_proxy.keys.text import PUBLIC_PREFIX as PUBLIC_PREFIX
from stcp_proxy.keys.text import PrivateKey as PrivateKey
from stcp_proxy.keys.text import PublicKey as PublicKey
from stcp_proxy.keys.text import format_private_key as format_private_key
from stcp_proxy.keys.text import format_psk as format_psk
from stcp_proxy.keys.text import generate_psk as generate_psk
from stcp_proxy.keys.text import parse_psk as parse_psk
